// Package lifecycle holds the tests of how the service starts, stops, is killed
// and reloads, and of what lasts.
package lifecycle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestRestartIsNotNoticed by any packet, whichever way the service ends: none
// is lost, none passes that should not, and no counter starts from zero.
func TestRestartIsNotNoticed(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"stopped", "killed"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			m := rig.NewMany(t, 30)
			m.Store(1024)
			m.StartDaemon()
			m.OK(m.AddXML(rig.NetXML("runtime", "virbr900", "nat", "10.99.0.1/24")))
			load := m.Begin()
			counted := m.Counters("net0")
			for range 4 {
				if end == "killed" {
					m.KillDaemon()
				} else {
					m.StopDaemon()
				}
				m.Await(load, 400)
				m.StartDaemon()
				m.Await(load, 400)
				counted = m.NotBelow("restarted", "net0", counted)
			}
			// The counters went on while the service was down.
			passed := load.Received()
			r := load.Stop()
			t.Log(r)
			for _, wrong := range r.Wrong(rig.WANAddress) {
				t.Error(wrong)
			}
			if counted["FromGuestPackets"] < passed/2 {
				t.Errorf("%d packets counted, %d passed", counted["FromGuestPackets"], passed)
			}
			if n := len(m.Names()); n != m.Count+1 {
				t.Errorf("%d networks after the restarts", n)
			}
		})
	}
}

// TestRestartMakesNothingAnew: a service that finds all as it should be touches
// no chain, rule or element of it. Each has a number that a new one would not.
func TestRestartMakesNothingAnew(t *testing.T) {
	t.Parallel()
	m := rig.NewMany(t, 120)
	m.Store(1024)
	m.StartDaemon()
	numbered := func() string {
		return rig.WithoutOwner(withoutCounts(rig.NFT(m.Host, "-a", "list", "table", "inet", "libvirt_network")))
	}
	for _, kill := range []bool{false, true} {
		before := numbered()
		m.Restart(kill)
		rig.Same(t, fmt.Sprintf("the table after a restart, killed: %v", kill), before, numbered())
	}
}

// TestForeignFlushOfAnOwnedTable: while the service runs no other program can
// change the table.
func TestForeignFlushOfAnOwnedTable(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	rig.Natted(t, guest, internet, "before")
	counted, table := r.Counters("default"), withoutCounts(r.Table())
	r.Must("nft", "flush", "ruleset")
	for _, forbidden := range []string{"delete table inet libvirt_network", "flush table inet libvirt_network", "flush set inet libvirt_network may_leave4_name"} {
		if out, err := r.Run(append([]string{"nft"}, strings.Fields(forbidden)...)...); err == nil {
			t.Errorf("nft %s worked: %s", forbidden, out)
		}
	}
	rig.Same(t, "the table changed", table, withoutCounts(r.Table()))
	rig.Guarded(t, guest, internet, "after a foreign flush")
	rig.Natted(t, guest, internet, "after a foreign flush")
	r.NotBelow("after a foreign flush", "default", counted)
	if n := r.Reapply(); n != 0 {
		t.Errorf("%d repairs where nothing was broken", n)
	}
}

// withoutCounts takes the numbers out of a listing.
func withoutCounts(table string) string {
	var out strings.Builder
	for line := range strings.Lines(table) {
		if trimmed := strings.TrimSpace(line); !strings.HasPrefix(trimmed, "packets ") {
			out.WriteString(rig.WithoutCounters(line))
		}
	}
	return out.String()
}

// TestSecondInstanceRefuses to start on the same bus, and harms nothing.
func TestSecondInstanceRefuses(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	r.OK(r.AddXML(rig.NetXML("kept", "virbr7", "route", "10.7.0.1/24"), "Persistent", true))
	rig.Natted(t, guest, internet, "before")
	counted := r.Counters("default")
	r.AwaitSaved()
	// The first one may be in the middle of a change: its temporary files and
	// its journal are its own.
	r.Write(rig.RuntimeDir+"/.virtfirewalld-under-way", "x")
	r.Write(rig.NetworksDir+"/.virtfirewalld-under-way", "x")
	files := func() string { // but for the counters, which the first one saves as packets come
		return r.Must("find", rig.RuntimeDir, rig.NetworksDir, "-type", "f", "!", "-name", "counters.json", "-printf", "%p %s %T@ %i\n")
	}
	before := files()
	table := r.Table()
	for _, args := range [][]string{nil, {"--config-dir", "/tmp/other", "--runtime-dir", "/tmp/run"}} {
		out, err := r.Run(append([]string{"timeout", "20", "/usr/sbin/virtfirewalld"}, args...)...)
		if err == nil || strings.Contains(err.Error(), "124") || !strings.Contains(out, "stop the other virtfirewalld first") {
			t.Errorf("a second instance: %v, %s", err, out)
		}
	}
	rig.Same(t, "the second instance changed files", before, files())
	rig.Same(t, "the second instance changed the table", table, r.Table())
	rig.Natted(t, guest, internet, "after")
	rig.Guarded(t, guest, internet, "after")
	r.NotBelow("after", "default", counted)
	r.OK(r.Network("default", "Update", rig.Opts("ForwardMode", "route"), rig.Opts()))
	r.OK(r.Network("default", "Update", rig.Opts("ForwardMode", "nat"), rig.Opts()))
	if n := r.Reapply(); n != 0 {
		t.Errorf("the second instance left %d networks to repair", n)
	}
}
