package tests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// TestRestartIsNotNoticed by any packet, whichever way the service ends: none
// is lost, none passes that should not, and no counter begins anew.
func TestRestartIsNotNoticed(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"stopped", "killed"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			m := newManyNetworks(t, 30)
			m.store(1024)
			m.StartDaemon()
			m.must(m.AddXML(netXML("runtime", "virbr900", "nat", "10.99.0.1/24")))
			load := m.begin()
			counted := m.Counters("net0")
			for range 4 {
				if end == "killed" {
					m.KillDaemon()
				} else {
					m.StopDaemon()
				}
				m.await(load, 400)
				m.StartDaemon()
				m.await(load, 400)
				counted = m.notBelow("restarted", "net0", counted)
			}
			// The counters went on while the service was down.
			passed := load.Received()
			r := load.Stop()
			t.Log(r)
			for _, wrong := range r.Wrong(wanAddress) {
				t.Error(wrong)
			}
			if counted["FromGuestPackets"] < passed/2 {
				t.Errorf("%d packets counted, %d passed", counted["FromGuestPackets"], passed)
			}
			if n := len(m.names()); n != m.count+1 {
				t.Errorf("%d networks after the restarts", n)
			}
		})
	}
}

// TestRestartMakesNothingAnew: a service that finds all as it should be touches
// no chain, rule or element of it. Each has a number that a new one would not.
func TestRestartMakesNothingAnew(t *testing.T) {
	t.Parallel()
	m := newManyNetworks(t, 120)
	m.store(1024)
	m.StartDaemon()
	numbered := func() string {
		return owner.ReplaceAllString(withoutCounts(nft(m.Host, "-a", "list", "table", "inet", "libvirt_network")), "")
	}
	for _, kill := range []bool{false, true} {
		before := numbered()
		m.restart(kill)
		if now := numbered(); now != before {
			t.Errorf("a restart changed the table (killed: %v):\n%s\n%s", kill, before, now)
		}
	}
}

// notBelow checks that no counter went back, and gives what they are now.
func (r *rig) notBelow(when, network string, before map[string]uint64) map[string]uint64 {
	r.t.Helper()
	now := r.Counters(network)
	for name, value := range before {
		if now[name] < value {
			r.t.Errorf("%s: counter %s of %s went from %d back to %d", when, name, network, value, now[name])
		}
	}
	return now
}

// repairs listens for Repaired signals, and gives what came so far by network.
func (r *rig) repairs() func() map[string][]string {
	r.t.Helper()
	conn, err := r.DialBus(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	signals := make(chan *godbus.Signal, 4096)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(godbus.WithMatchInterface(managerName), godbus.WithMatchMember("Repaired")); err != nil {
		r.t.Fatal(err)
	}
	got := map[string][]string{}
	return func() map[string][]string {
		// What the service sent before it answers is here before the answer.
		if err := conn.Object(managerName, managerPath).Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
			r.t.Fatal(err)
		}
		for {
			select {
			case s := <-signals:
				if s.Name != managerName+".Repaired" {
					continue // NameAcquired comes without being asked for
				}
				name := s.Body[0].(string)
				got[name] = append(got[name], s.Body[1].(string))
			default:
				return got
			}
		}
	}
}

func (r *rig) reapply() (repairs uint32) {
	r.t.Helper()
	r.must(r.Manager("Reapply"), &repairs)
	return repairs
}

// TestForeignFlushOfAnOwnedTable: while the service runs the table is nobody
// else's to change.
func TestForeignFlushOfAnOwnedTable(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	natted(t, guest, internet, "before")
	counted, table := r.Counters("default"), withoutCounts(r.Table())
	r.Must("nft", "flush", "ruleset")
	for _, forbidden := range []string{"delete table inet libvirt_network", "flush table inet libvirt_network", "delete chain inet libvirt_network net_default_from"} {
		if out, err := r.Run(append([]string{"nft"}, strings.Fields(forbidden)...)...); err == nil {
			t.Errorf("nft %s worked: %s", forbidden, out)
		}
	}
	if now := withoutCounts(r.Table()); now != table {
		t.Errorf("the table changed:\n%s\n%s", table, now)
	}
	guarded(t, guest, internet, "after a foreign flush")
	natted(t, guest, internet, "after a foreign flush")
	r.notBelow("after a foreign flush", "default", counted)
	if n := r.reapply(); n != 0 {
		t.Errorf("%d repairs where nothing was broken", n)
	}
}

// withoutCounts takes the numbers out of a listing.
func withoutCounts(table string) string {
	var out strings.Builder
	for line := range strings.Lines(table) {
		if trimmed := strings.TrimSpace(line); !strings.HasPrefix(trimmed, "packets ") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// awaitSaved waits until what was seen of the counters is on disk.
func (r *rig) awaitSaved() {
	r.t.Helper()
	seen := fmt.Sprintf("\"FromGuestPackets\":%d,", r.Counters("default")["FromGuestPackets"])
	for deadline := time.Now().Add(host.Patient(20 * time.Second)); !strings.Contains(r.file(runtimeDir+"/counters.json"), seen); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("counters are not saved: %s is not in %q", seen, r.file(runtimeDir+"/counters.json"))
		}
	}
}

// TestSecondInstanceRefuses to start on the same bus, and harms nothing.
func TestSecondInstanceRefuses(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	r.must(r.AddXML(netXML("kept", "virbr7", "route", "10.7.0.1/24"), "Persistent", true))
	natted(t, guest, internet, "before")
	counted := r.Counters("default")
	r.awaitSaved()
	// The first one may be in the middle of a change: its temporary files and
	// its journal are its own.
	r.write(runtimeDir+"/.virtfirewalld-under-way", "x")
	r.write(networksDir+"/.virtfirewalld-under-way", "x")
	files := func() string { // but for the counters, which the first one saves as packets come
		return r.Must("find", runtimeDir, networksDir, "-type", "f", "!", "-name", "counters.json", "-printf", "%p %s %T@ %i\n")
	}
	before := files()
	table := r.Table()
	for _, args := range [][]string{nil, {"--config-dir", "/tmp/other", "--runtime-dir", "/tmp/run"}} {
		out, err := r.Run(append([]string{"timeout", "20", "/usr/sbin/virtfirewalld"}, args...)...)
		if err == nil || strings.Contains(err.Error(), "124") || !strings.Contains(out, "stop the other virtfirewalld first") {
			t.Errorf("a second instance: %v, %s", err, out)
		}
	}
	if now := files(); now != before {
		t.Errorf("the second instance changed files:\n%s\n%s", before, now)
	}
	if now := r.Table(); now != table {
		t.Errorf("the second instance changed the table:\n%s\n%s", table, now)
	}
	natted(t, guest, internet, "after")
	guarded(t, guest, internet, "after")
	r.notBelow("after", "default", counted)
	r.must(r.Network("default", "Update", opts("ForwardMode", "route"), opts()))
	r.must(r.Network("default", "Update", opts("ForwardMode", "nat"), opts()))
	if n := r.reapply(); n != 0 {
		t.Errorf("the second instance left %d networks to repair", n)
	}
}
