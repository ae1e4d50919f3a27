package packets

import (
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// However many files have changed, a reload is one transaction, or three where networks
// get chains of their own: those are there before elements lead to them, and what is
// translated goes last. No packet is lost by it, none passes that should not, and each
// new flow is translated.
func TestReloadUnderTraffic(t *testing.T) {
	t.Parallel()
	m := rig.NewMany(t, 200)
	m.Store(1024)
	m.StartDaemon()
	load := m.Begin()
	for i := range 5 {
		m.Store(2000 + i)
		before := m.Generation()
		m.OK(m.Manager("Reload"))
		want := uint32(1)
		if i == 0 {
			want = 3
		}
		if got := m.Generation() - before; got != want {
			t.Errorf("reload %d took %d transactions, want %d", i, got, want)
		}
		m.Await(load, 400)
	}
	before := m.Generation()
	m.OK(m.Manager("Reload"))
	if got := m.Generation() - before; got != 0 {
		t.Errorf("a reload of what had not changed took %d transactions, want none", got)
	}
	r := load.Stop()
	t.Log(r)
	for _, wrong := range r.Wrong(rig.WANAddress) {
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
	m := rig.NewMany(t, 0, host.WithForwarding())
	load := m.Begin()
	m.Await(load, 400)
	r := load.Stop()
	t.Log(r)
	if r.Stream.Lost+r.Flows.Lost+r.Unasked.Lost+r.Forged.Lost > 0 || r.Unasked.Received == 0 || r.Forged.Received == 0 {
		t.Error("without rules everything should arrive")
	}
	if got := r.Wrong(rig.WANAddress); len(got) != 4 {
		t.Errorf("got complaints %q, want four: untranslated stream and flows, unasked-for and forged packets", got)
	}
}
