package tests

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/traffic"
)

// manyNetworks is a host with persistent NAT networks, of which the first has
// its bridge and a guest.
type manyNetworks struct {
	*rig
	count          int
	guest, outside *host.Peer
}

func newManyNetworks(t *testing.T, count int, options ...host.Option) *manyNetworks {
	t.Helper()
	m := &manyNetworks{rig: newRig(t, options...), count: count}
	m.outside = m.Internet()
	m.Bridge("virbr0", "10.64.0.1/24")
	m.guest = m.Guest("virbr0", "guest", "10.64.0.10/24")
	return m
}

// store writes all files with a first source port of translated connections.
func (m *manyNetworks) store(firstPort int) {
	m.t.Helper()
	err := m.Inside(func() error {
		const dir = "/etc/virtfirewalld/networks"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i := range m.count {
			xml := fmt.Sprintf("<network><name>net%d</name><forward mode='nat'><nat><port start='%d' end='65535'/></nat></forward>"+
				"<bridge name='virbr%d'/><ip address='10.64.%d.1' prefix='24'/></network>", i, firstPort, i, i)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("net%d.xml", i)), []byte(xml), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

var wanAddress = netip.MustParseAddr("203.0.113.2")

// busy are rates that a machine of two cores has with the race detector on.
var busy = traffic.Rates{Stream: 2000, Flows: 500, Unasked: 500, Forged: 500}

// begin starts the traffic and waits until it passes.
func (m *manyNetworks) begin() *traffic.Load {
	m.t.Helper()
	load, err := traffic.Start(m.guest, m.outside, busy)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { load.Stop() }) // a second time does nothing
	m.await(load, 200)
	return load
}

// await waits until more of the stream has arrived.
func (m *manyNetworks) await(load *traffic.Load, more uint64) {
	m.t.Helper()
	want := load.Received() + more
	for deadline := time.Now().Add(host.Patient(30 * time.Second)); load.Received() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("the stream does not arrive: %v", load.Stop())
		}
	}
}

func (m *manyNetworks) generation() uint32 {
	m.t.Helper()
	id, err := traffic.Generation(m)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// However many files have changed, a reload is one transaction; no packet is
// lost by it, none passes that should not, and each new flow is translated.
func TestReloadUnderTraffic(t *testing.T) {
	t.Parallel()
	m := newManyNetworks(t, 200)
	m.store(1024)
	m.StartDaemon()
	load := m.begin()
	for i := range 5 {
		m.store(2000 + i)
		before := m.generation()
		m.must(m.Manager("Reload"))
		if got := m.generation() - before; got != 1 {
			t.Errorf("reload %d took %d transactions, want 1", i, got)
		}
		m.await(load, 400)
	}
	before := m.generation()
	m.must(m.Manager("Reload"))
	if got := m.generation() - before; got != 0 {
		t.Errorf("a reload of what had not changed took %d transactions, want none", got)
	}
	r := load.Stop()
	t.Log(r)
	for _, wrong := range r.Wrong(wanAddress) {
		t.Error(wrong)
	}
	if got := m.Counters("net199"); got["FromGuestPackets"] != 0 {
		t.Errorf("a network without a bridge has counted: %v", got)
	}
}

// The traffic of the test above would get through without rules, so that its
// absence says something, and what is wrong with it is seen.
func TestTrafficPassesWithoutRules(t *testing.T) {
	t.Parallel()
	m := newManyNetworks(t, 0, host.WithForwarding())
	load := m.begin()
	m.await(load, 400)
	r := load.Stop()
	t.Log(r)
	if r.Stream.Lost+r.Flows.Lost+r.Unasked.Lost+r.Forged.Lost > 0 || r.Unasked.Received == 0 || r.Forged.Received == 0 {
		t.Error("without rules everything should arrive")
	}
	if got := r.Wrong(wanAddress); len(got) != 4 {
		t.Errorf("got complaints %q, want four: untranslated stream and flows, unasked-for and forged packets", got)
	}
}
