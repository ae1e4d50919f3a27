package rig

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Connection is a TCP connection between two nodes; Works reports whether it
// still works.
type Connection struct {
	conn net.Conn
	line *bufio.Reader
	Seen netip.AddrPort // the source that the server saw
}

// Connect connects from one node to an echo server on another.
func Connect(t testing.TB, from, to host.Node, at string) *Connection {
	t.Helper()
	seen := make(chan net.Addr, 1)
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go echo(listener, seen)
	c := &Connection{}
	err = from.Do(func() (err error) {
		c.conn, err = net.DialTimeout("tcp", at, host.Patient(3*time.Second))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	c.line = bufio.NewReader(c.conn)
	c.Seen = (<-seen).(*net.TCPAddr).AddrPort()
	return c
}

// echo answers the one connection that comes.
func echo(l net.Listener, seen chan<- net.Addr) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	seen <- conn.RemoteAddr()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if _, err := fmt.Fprintln(conn, lines.Text()); err != nil {
			return
		}
	}
}

// Works checks that a line goes there and back.
func (c *Connection) Works(t testing.TB, when string) {
	t.Helper()
	want := fmt.Sprintf("%s %d\n", when, time.Now().UnixNano())
	_ = c.conn.SetDeadline(time.Now().Add(host.Patient(10 * time.Second)))
	if _, err := fmt.Fprint(c.conn, want); err != nil {
		t.Fatalf("%s: the established connection broke: %v", when, err)
	}
	if got, err := c.line.ReadString('\n'); err != nil || got != want {
		t.Fatalf("%s: the established connection broke: %q, %v", when, got, err)
	}
}
