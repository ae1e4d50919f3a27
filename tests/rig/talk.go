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

// Talk is a TCP connection between two nodes that can be asked whether it
// still works.
type Talk struct {
	conn net.Conn
	line *bufio.Reader
	Seen netip.AddrPort // the source that the server saw
}

// NewTalk connects from one node to an echo server on another.
func NewTalk(t testing.TB, from, to host.Node, at string) *Talk {
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
	k := &Talk{}
	err = from.Do(func() (err error) {
		k.conn, err = net.DialTimeout("tcp", at, host.Patient(3*time.Second))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.conn.Close() })
	k.line = bufio.NewReader(k.conn)
	k.Seen = (<-seen).(*net.TCPAddr).AddrPort()
	return k
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
func (k *Talk) Works(t testing.TB, when string) {
	t.Helper()
	want := fmt.Sprintf("%s %d\n", when, time.Now().UnixNano())
	_ = k.conn.SetDeadline(time.Now().Add(host.Patient(10 * time.Second)))
	if _, err := fmt.Fprint(k.conn, want); err != nil {
		t.Fatalf("%s: the established connection broke: %v", when, err)
	}
	if got, err := k.line.ReadString('\n'); err != nil || got != want {
		t.Fatalf("%s: the established connection broke: %q, %v", when, got, err)
	}
}
