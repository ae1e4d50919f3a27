package tests

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// silenceAnnounced is what the service logs of a firewalld that does not answer.
var silenceAnnounced = []string{
	"state_code=zone-not-bound", "state_code=firewalld-unresponsive", "asking firewalld", "taking back a failed change",
	"firewalld does not answer", "iptables holds libvirt's own rules",
}

// TestSilentFirewalldCostsOneSecond stops the real firewalld before each call
// anew, so that each is the one that finds it out. None waits for longer than
// a second; what asks for a zone fails, and everything else succeeds.
func TestSilentFirewalldCostsOneSecond(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce(silenceAnnounced...)
	for i, name := range []string{"a", "b", "c", "d"} {
		r.must(r.AddXML(netXML(name, "br-"+name, "nat", fmt.Sprintf("10.7.%d.1/24", i))))
	}
	for _, c := range []struct {
		name  string
		fails bool
		call  func() *godbus.Call
	}{
		{"AddNetwork", false, func() *godbus.Call { return r.AddXML(netXML("new", "br-new", "nat", "10.8.0.1/24")) }},
		{"AddNetwork with a zone", true, func() *godbus.Call {
			return r.AddXML(inZone(netXML("asked", "br-asked", "nat", "10.8.1.1/24"), "work"))
		}},
		{"AddNetwork, Replace", false, func() *godbus.Call { return r.AddXML(netXML("a", "br-aa", "route", "10.7.0.1/24"), "Replace", true) }},
		{"Update of the mode", false, func() *godbus.Call {
			return r.Network("b", "Update", opts("ForwardMode", "route"), opts())
		}},
		{"Update of a setting", false, func() *godbus.Call { return r.Network("b", "Update", opts("TFTP", true), opts()) }},
		{"Update to open", false, func() *godbus.Call { return r.Network("c", "Update", opts("ForwardMode", "open"), opts()) }},
		{"Update of the zone", true, func() *godbus.Call { return r.Network("b", "Update", opts("Zone", "work"), opts()) }},
		{"BindInterface", true, func() *godbus.Call { return r.Manager("BindInterface", "br-b", "drop") }},
		{"UnbindInterface", true, func() *godbus.Call { return r.Manager("UnbindInterface", "br-b") }},
		{"Reload", false, func() *godbus.Call { return r.Manager("Reload") }},
		{"Reapply", false, func() *godbus.Call { return r.Manager("Reapply") }},
		{"SetBackend", false, func() *godbus.Call { return r.Manager("SetBackend", "iptables", opts()) }},
		{"GetRuleset", false, func() *godbus.Call { return r.Network("b", "GetRuleset") }},
		{"GetCounters", false, func() *godbus.Call { return r.Network("b", "GetCounters") }},
		{"ListNetworks", false, func() *godbus.Call { return r.Manager("ListNetworks") }},
		{"properties", false, func() *godbus.Call { return r.Call(managerPath, propertiesName+".GetAll", managerName) }},
		{"RemoveNetwork", false, func() *godbus.Call { return r.Manager("RemoveNetwork", "d", opts()) }},
	} {
		r.signalFirewalld(syscall.SIGSTOP)
		begin := time.Now()
		call := c.call()
		took := time.Since(begin)
		t.Logf("%s took %s", c.name, took.Round(time.Millisecond))
		if (call.Err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, call.Err)
		}
		if took > host.Patient(3*time.Second) { // of which firewalld cost one at most
			t.Errorf("%s was kept waiting for %s", c.name, took)
		}
		r.signalFirewalld(syscall.SIGCONT)
		r.settled()
	}
	for bridge, want := range map[string]string{
		"br-new": "libvirt", "br-asked": "", "br-a": "", "br-aa": "libvirt-routed", "br-b": "libvirt-routed", "br-c": "", "br-d": "",
	} {
		if zone := r.zoneOf(bridge); zone != want {
			t.Errorf("in the end %s is in zone %q, want %q", bridge, zone, want)
		}
	}
	if out, _ := r.Run("sh", "-c", "ls "+runtimeDir+"/leaving"); out != "" {
		t.Errorf("recorded as leaving its zone: %s", out)
	}
}

// settled waits until no network is degraded and nothing is owed any more.
func (r *rig) settled() {
	r.t.Helper()
	for _, name := range r.names() {
		r.until(name+" is not degraded", func() bool { state, _ := r.State(name); return state != "degraded" })
	}
	r.until("nothing is owed", func() bool {
		out, _ := r.Run("sh", "-c", "ls "+runtimeDir+"/leaving")
		return out == "" && !strings.Contains(r.Table(), "leaving")
	})
}

// TestRemovalWhileFirewalldIsSilent: zone libvirt accepts what only the rules of
// an isolated network keep apart. The network is removed at once, and its rules
// hold until the bridge has left the zone, whatever becomes of the service.
func TestRemovalWhileFirewalldIsSilent(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.configure(fmt.Sprintf("firewall_backend = %q\n", backend))
			r.zoneFiles(allZones...)
			r.Firewalld("nftables")
			r.StartDaemon()
			r.Announce(silenceAnnounced...)
			flows := isolatedFlows(t, r)
			rules := func() bool { return strings.Contains(r.Table(), "leaving") || strings.Contains(r.chains(), "virbr0") }

			f := r.Follow()
			r.signalFirewalld(syscall.SIGSTOP)
			r.must(r.Manager("RemoveNetwork", "lonely", opts("Persistent", true)))
			wantOther := func(when string) {
				t.Helper()
				if names := r.names(); !slices.Equal(names, []string{"other"}) {
					t.Errorf("%s: networks %q", when, names)
				}
			}
			wantOther("removed")
			f.until("NetworkRemoved")
			if r.file(networksDir+"/lonely.xml") != "" || !rules() {
				t.Errorf("the file is there, or the rules are not:\n%s\n%s", r.Table(), r.chains())
			}
			r.must(r.Manager("Reapply"))
			r.must(r.Manager("Reload"))
			for _, kill := range []bool{true, false} {
				r.restart(kill)
				wantOther("restarted")
				if !rules() {
					t.Errorf("restarted without the rules:\n%s\n%s", r.Table(), r.chains())
				}
			}
			r.signalFirewalld(syscall.SIGCONT)
			r.until("virbr0 has left its zone", func() bool { return r.zoneOf("virbr0") == "" })
			r.until("the rules have gone", func() bool { return !rules() })
			r.settled()
			for _, flow := range flows {
				if report := flow.Stop(); report.Received > 0 || report.Sent < 100 {
					t.Errorf("out of the isolated network: %s", report)
				}
			}
			if n, err := r.reapplied(); n != 0 || err != nil {
				t.Errorf("in the end a comparison mended %d, %v", n, err)
			}
		})
	}
}

func (r *rig) reapplied() (n uint32, err error) {
	call := r.Manager("Reapply")
	if call.Err == nil {
		err = call.Store(&n)
	} else {
		err = call.Err
	}
	return n, err
}

// isolatedFlows adds an isolated network, and sends from its guest to the
// outside in both families, none of which may arrive.
func isolatedFlows(t *testing.T, r *rig) []*host.Flows {
	t.Helper()
	internet := r.Internet()
	r.Bridge("virbr0", natNet, nat6Net)
	r.must(r.AddXML(netXML("lonely", "virbr0", "isolated", natNet, nat6Net), "Persistent", true))
	r.must(r.AddXML(netXML("other", "virbr1", "nat", "10.7.1.1/24")))
	r.wantZone("lonely", "virbr0", "libvirt")
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	var flows []*host.Flows
	for _, at := range []string{"203.0.113.1:7000", "[2001:db8:ffff::1]:7000"} {
		f, err := host.StartFlows(guest, internet, host.StreamConfig{To: netip.MustParseAddrPort(at), Rate: 200})
		fatal(t, err)
		flows = append(flows, f)
	}
	return flows
}

// TestAddedWhileItsBridgeIsLeaving: a network that was removed while firewalld
// does not answer can be added again at once, in whatever form. Its former
// bridge leaves the zone, unless a network has it.
func TestAddedWhileItsBridgeIsLeaving(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"the same":       netXML("lonely", "virbr0", "isolated", natNet),
		"another name":   netXML("renamed", "virbr0", "isolated", natNet),
		"another bridge": netXML("lonely", "virbr2", "isolated", natNet),
		"open":           netXML("open", "virbr0", "open", natNet),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := walledRig(t, allZones...)
			r.Announce(silenceAnnounced...)
			r.must(r.AddXML(netXML("lonely", "virbr0", "isolated", natNet)))
			r.signalFirewalld(syscall.SIGSTOP)
			r.must(r.Manager("RemoveNetwork", "lonely", opts()))
			r.must(r.AddXML(doc))
			kept := strings.Contains(r.Table(), "leaving")
			if governed := name == "the same" || name == "another name"; kept == governed {
				t.Errorf("rules of the bridge that leaves: %v\n%s", kept, r.Table())
			}
			again := r.names()
			r.must(r.Manager("RemoveNetwork", again[0], opts())) // and once more
			if !strings.Contains(r.Table(), "leaving") {
				t.Errorf("removed again, no rules hold for virbr0:\n%s", r.Table())
			}
			r.must(r.AddXML(doc))
			r.signalFirewalld(syscall.SIGCONT)
			r.settled()
			for _, bridge := range []string{"virbr0", "virbr2"} {
				want := ""
				if strings.Contains(doc, bridge) && name != "open" {
					want = "libvirt"
				}
				r.until(bridge+" is in zone "+want, func() bool { return r.zoneOf(bridge) == want })
			}
			if n, err := r.reapplied(); n != 0 || err != nil {
				t.Errorf("in the end a comparison mended %d, %v", n, err)
			}
		})
	}
}
