package firewalld

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// chosen is a network whose bridge's zone was chosen by hand, and that zone.
type chosen struct {
	name, zone string
	choose     func(r *rig.Rig, bridge string)
}

func (c chosen) bridge() string { return "br-" + c.name }

// choices returns the ways to choose a zone while the service runs.
func choices() []chosen {
	return []chosen{
		{"bound", "drop", func(r *rig.Rig, bridge string) { r.OK(r.Manager("BindInterface", bridge, "drop")) }},
		{"unbound", "", func(r *rig.Rig, bridge string) { r.OK(r.Manager("UnbindInterface", bridge)) }},
		{"moved", "drop", func(r *rig.Rig, bridge string) {
			r.Must("firewall-cmd", "--zone=drop", "--change-interface="+bridge)
		}},
		{"removed", "", func(r *rig.Rig, bridge string) {
			r.Must("firewall-cmd", "--zone=libvirt", "--remove-interface="+bridge)
		}},
		{"plain", "libvirt", func(*rig.Rig, string) {}},
		{"later", "libvirt", func(*rig.Rig, string) {}}, // moved while the service is down
	}
}

// choosingRig has a network for each choice, with a guest, and has chosen.
func choosingRig(t *testing.T) (*rig.Rig, []chosen, map[string]*host.Peer) {
	t.Helper()
	r := rig.WithFirewalld(t, rig.AllZones...)
	guests := map[string]*host.Peer{}
	all := choices()
	for i, c := range all {
		addrs := []string{fmt.Sprintf("10.7.%d.1/24", i), fmt.Sprintf("2001:db8:7%d::1/64", i)}
		r.Bridge(c.bridge(), addrs...)
		r.OK(r.AddXML(rig.NetXML(c.name, c.bridge(), "nat", addrs...), "Persistent", i%2 == 0))
		r.Firewalld.WantZone(c.name, c.bridge(), "libvirt")
		guests[c.name] = r.Guest(c.bridge(), "g-"+c.name, fmt.Sprintf("10.7.%d.10/24", i), fmt.Sprintf("2001:db8:7%d::10/64", i))
	}
	for _, c := range all {
		c.choose(r, c.bridge())
		r.Firewalld.AwaitZone(c.name, c.bridge(), c.zone)
	}
	return r, all, guests
}

// knocking sends new flows to a port of the host that zone libvirt opens and
// zone drop does not, in both families.
func knocking(t *testing.T, r *rig.Rig, guest *host.Peer, number int) []*host.Flows {
	t.Helper()
	var out []*host.Flows
	for _, at := range []string{fmt.Sprintf("10.7.%d.1:53", number), fmt.Sprintf("[2001:db8:7%d::1]:53", number)} {
		f, err := host.StartFlows(guest, r.Host, host.StreamConfig{To: netip.MustParseAddrPort(at), Rate: 200})
		rig.Must(t, err)
		out = append(out, f)
	}
	return out
}

// TestZonesByHandLastOverARestart: a zone chosen by hand is kept over a stop and
// a kill, at every instant: a guest in zone drop never reaches the host, whatever
// the service does at its start.
func TestZonesByHandLastOverARestart(t *testing.T) {
	t.Parallel()
	r, all, guests := choosingRig(t)
	plain := guests["plain"]
	speak(t, []spoken{{"DNS", plain, r.Host, host.UDP, "10.7.4.1:53", "passes"}, {"DNS", plain, r.Host, host.UDP, "[2001:db8:74::1]:53", "passes"}})
	var flows []*host.Flows
	for i, c := range all {
		if c.zone == "drop" {
			flows = append(flows, knocking(t, r, guests[c.name], i)...)
		}
	}
	for _, kill := range []bool{false, true} {
		if kill {
			r.KillDaemon()
		} else {
			r.StopDaemon()
		}
		if i := slices.IndexFunc(all, func(c chosen) bool { return c.name == "later" }); all[i].zone != "drop" {
			r.Must("firewall-cmd", "--zone=drop", "--change-interface="+all[i].bridge())
			all[i].zone = "drop"
			flows = append(flows, knocking(t, r, guests["later"], i)...)
		}
		r.StartDaemon()
		// A call that comes before the service has looked at the zones.
		r.OK(r.Network("moved", "Update", rig.Opts("TFTP", kill), rig.Opts()))
		for _, c := range all {
			r.Firewalld.AwaitZone(c.name, c.bridge(), c.zone)
			if state, reason := r.State(c.name); state != "active" {
				t.Errorf("killed %v: %s is %s: %s", kill, c.name, state, reason)
			}
		}
	}
	for _, f := range flows {
		if report := f.Stop(); report.Received > 0 || report.Sent < 100 {
			t.Errorf("from a guest in zone drop: %s", report)
		}
	}
}

// TestZonesByHandEnd: what ends a choice ends it after a restart as well.
func TestZonesByHandEnd(t *testing.T) {
	t.Parallel()
	r, all, _ := choosingRig(t)
	// want says which choices hold; the others' bridges are back in zone libvirt.
	want := func(when string, holds ...string) {
		t.Helper()
		for _, c := range all {
			zone := "libvirt"
			if slices.Contains(holds, c.name) {
				zone = c.zone
			}
			r.Firewalld.AwaitZone(c.name, c.bridge(), zone)
		}
		if t.Failed() {
			t.Fatal(when)
		}
	}
	again := func(names ...string) {
		t.Helper()
		for _, c := range all {
			if slices.Contains(names, c.name) {
				c.choose(r, c.bridge())
				r.Firewalld.AwaitZone(c.name, c.bridge(), c.zone)
			}
		}
	}
	r.Restart(true)
	want("restarted", "bound", "unbound", "moved", "removed")
	r.OK(r.Manager("Reapply"))
	want("reapplied", "bound", "unbound")
	r.Restart(true)
	want("restarted after it was reapplied", "bound", "unbound")

	again("moved", "removed")
	r.KillDaemon()
	r.Must("firewall-cmd", "--reload")
	r.StartDaemon()
	r.Firewalld.AwaitZone("moved", "br-moved", "libvirt") // firewalld itself has forgotten
	r.Firewalld.AwaitZone("bound", "br-bound", "drop")
	r.OK(r.Manager("Reapply"))
	want("firewalld reloaded while the service was down", "bound", "unbound")

	again("moved", "removed")
	r.StopDaemon()
	r.Firewalld.Restart(syscall.SIGTERM)
	r.StartDaemon()
	want("firewalld restarted while the service was down", "bound", "unbound")

	r.OK(r.Network("unbound", "Update", rig.Opts("Zone", "work"), rig.Opts()))
	r.OK(r.Network("unbound", "Update", rig.Opts("Zone", ""), rig.Opts()))
	r.Restart(true)
	want("another zone was asked for", "bound")

	again("unbound", "moved", "removed")
	r.OK(r.Manager("Reload"))
	r.Restart(true)
	want("reloaded")

	again("bound", "unbound", "moved", "removed")
	r.StopDaemon()
	r.Must("rm", "-rf", rig.RuntimeDir)
	r.Must("nft", "delete", "table", "inet", "libvirt_network")
	r.Firewalld.Restart(syscall.SIGTERM)
	r.StartDaemon()
	r.WantNames("rebooted", "bound", "moved", "plain")
	for _, name := range []string{"bound", "moved", "plain"} { // the persistent ones
		r.Firewalld.AwaitZone(name, "br-"+name, "libvirt")
	}
}

// TestBrokenRecordOfZones prevents no start: an unreadable record is put aside
// and reported, and a bridge in a zone that is not one of the service's stays
// there.
func TestBrokenRecordOfZones(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "cut": `{"Zone":"li`, "another's": `{"Network":"nobody","Zone":"libvirt"}`, "null": "null", "mode": "{}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.WithFirewalld(t, rig.AllZones...)
			for i, net := range []string{"bound", "plain"} {
				r.Bridge("br-"+net, fmt.Sprintf("10.7.%d.1/24", i))
				r.OK(r.AddXML(rig.NetXML(net, "br-"+net, "nat", fmt.Sprintf("10.7.%d.1/24", i))))
			}
			r.OK(r.Manager("BindInterface", "br-bound", "drop"))
			r.KillDaemon()
			for _, net := range []string{"bound", "plain"} {
				r.Write(zoneRecord(net), text)
				if name == "mode" {
					r.Must("chmod", "0666", zoneRecord(net))
				}
			}
			r.Announce("a record of a bridge's zone")
			r.StartDaemon()
			r.Firewalld.AwaitZone("bound", "br-bound", "drop")
			r.Firewalld.AwaitZone("plain", "br-plain", "libvirt")
			log := r.Daemon.Log()
			for _, net := range []string{"bound", "plain"} {
				if kept := r.File(zoneRecord(net) + ".broken"); kept != text {
					t.Errorf("kept aside of %s is %q, want %q", net, kept, text)
				}
				if !strings.Contains(log, zoneRecord(net)) {
					t.Errorf("the log does not name %s:\n%s", zoneRecord(net), log)
				}
			}
			r.Restart(true)
			r.Firewalld.AwaitZone("bound", "br-bound", "drop")
			r.OK(r.Manager("Reapply"))
			r.Firewalld.AwaitZone("bound", "br-bound", "libvirt")
		})
	}
}

func zoneRecord(network string) string { return rig.RuntimeDir + "/zones/" + network + ".json" }
