package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/traffic"
)

// Many is a host with persistent NAT networks, of which the first has
// its bridge and a guest.
type Many struct {
	*Rig
	Count           int
	Sender, Outside *host.Peer
}

// NewMany makes the host; Store makes the networks, of which there are count.
func NewMany(t testing.TB, count int, options ...host.Option) *Many {
	t.Helper()
	m := &Many{Rig: New(t, options...), Count: count}
	m.Outside = m.Internet()
	m.Bridge("virbr0", "10.64.0.1/24")
	m.Sender = m.Guest("virbr0", "guest", "10.64.0.10/24")
	return m
}

// Store writes all files with a first source port of translated connections.
func (m *Many) Store(firstPort int) {
	m.T.Helper()
	err := m.Inside(func() error {
		if err := os.MkdirAll(NetworksDir, 0o755); err != nil {
			return err
		}
		for i := range m.Count {
			xml := fmt.Sprintf("<network><name>net%d</name><forward mode='nat'><nat><port start='%d' end='65535'/></nat></forward>"+
				"<bridge name='virbr%d'/><ip address='10.64.%d.1' prefix='24'/></network>", i, firstPort, i, i)
			if err := os.WriteFile(filepath.Join(NetworksDir, fmt.Sprintf("net%d.xml", i)), []byte(xml), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.T.Fatal(err)
	}
}

// busy are rates that a machine of two cores has with the race detector on.
var busy = traffic.Rates{Stream: 2000, Flows: 500, Unasked: 500, Forged: 500}

// Begin starts the traffic and waits until it passes.
func (m *Many) Begin() *traffic.Load {
	m.T.Helper()
	load, err := traffic.Start(m.Sender, m.Outside, busy)
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { load.Stop() }) // a second time does nothing
	m.Await(load, 200)
	return load
}

// Await waits until more of the stream has arrived.
func (m *Many) Await(load *traffic.Load, more uint64) {
	m.T.Helper()
	want := load.Received() + more
	for deadline := time.Now().Add(host.Patient(30 * time.Second)); load.Received() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.T.Fatalf("the stream does not arrive: %v", load.Stop())
		}
	}
}

// Generation returns the number of the host's latest nftables transaction.
func (m *Many) Generation() uint32 {
	m.T.Helper()
	id, err := traffic.Generation(m)
	if err != nil {
		m.T.Fatal(err)
	}
	return id
}
