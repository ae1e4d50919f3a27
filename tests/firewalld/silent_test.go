package firewalld

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
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// silenceAnnounced is what the service logs of a firewalld that does not answer.
var silenceAnnounced = []string{
	"state_code=zone-not-bound", "state_code=firewalld-unresponsive", "asking firewalld", "taking back a failed change",
	"firewalld does not answer", "iptables holds libvirt's own rules",
}

// TestSilentFirewalldCostsOneSecond stops the real firewalld before each call
// again, so that each is the one that finds it out. None waits for longer than
// a second; what asks for a zone fails, and everything else succeeds.
func TestSilentFirewalldCostsOneSecond(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Announce(silenceAnnounced...)
	for i, name := range []string{"a", "b", "c", "d"} {
		r.OK(r.AddXML(rig.NetXML(name, "br-"+name, "nat", fmt.Sprintf("10.7.%d.1/24", i))))
	}
	for _, c := range []struct {
		name  string
		fails bool
		call  func() *godbus.Call
	}{
		{"AddNetwork", false, func() *godbus.Call { return r.AddXML(rig.NetXML("new", "br-new", "nat", "10.8.0.1/24")) }},
		{"AddNetwork with a zone", true, func() *godbus.Call {
			return r.AddXML(inZone(rig.NetXML("asked", "br-asked", "nat", "10.8.1.1/24"), "work"))
		}},
		{"AddNetwork, Replace", false, func() *godbus.Call {
			return r.AddXML(rig.NetXML("a", "br-aa", "route", "10.7.0.1/24"), "Replace", true)
		}},
		{"Update of the mode", false, func() *godbus.Call {
			return r.Network("b", "Update", rig.Opts("ForwardMode", "route"), rig.Opts())
		}},
		{"Update of a setting", false, func() *godbus.Call { return r.Network("b", "Update", rig.Opts("TFTP", true), rig.Opts()) }},
		{"Update to open", false, func() *godbus.Call { return r.Network("c", "Update", rig.Opts("ForwardMode", "open"), rig.Opts()) }},
		{"Update of the zone", true, func() *godbus.Call { return r.Network("b", "Update", rig.Opts("Zone", "work"), rig.Opts()) }},
		{"BindInterface", true, func() *godbus.Call { return r.Manager("BindInterface", "br-b", "drop") }},
		{"UnbindInterface", true, func() *godbus.Call { return r.Manager("UnbindInterface", "br-b") }},
		{"Reload", false, func() *godbus.Call { return r.Manager("Reload") }},
		{"Reapply", false, func() *godbus.Call { return r.Manager("Reapply") }},
		{"SetBackend", false, func() *godbus.Call { return r.Manager("SetBackend", "iptables", rig.Opts()) }},
		{"GetRuleset", false, func() *godbus.Call { return r.Network("b", "GetRuleset") }},
		{"GetCounters", false, func() *godbus.Call { return r.Network("b", "GetCounters") }},
		{"ListNetworks", false, func() *godbus.Call { return r.Manager("ListNetworks") }},
		{"properties", false, func() *godbus.Call { return r.Call(rig.ManagerPath, rig.PropertiesName+".GetAll", rig.ManagerName) }},
		{"RemoveNetwork", false, func() *godbus.Call { return r.Manager("RemoveNetwork", "d", rig.Opts()) }},
	} {
		r.Firewalld.Signal(syscall.SIGSTOP)
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
		r.Firewalld.Signal(syscall.SIGCONT)
		settled(r)
	}
	for bridge, want := range map[string]string{
		"br-new": "libvirt", "br-asked": "", "br-a": "", "br-aa": "libvirt-routed", "br-b": "libvirt-routed", "br-c": "", "br-d": "",
	} {
		if zone := r.Firewalld.ZoneOf(bridge); zone != want {
			t.Errorf("in the end %s is in zone %q, want %q", bridge, zone, want)
		}
	}
	if out, _ := r.Run("sh", "-c", "ls "+rig.RuntimeDir+"/leaving"); out != "" {
		t.Errorf("recorded as leaving its zone: %s", out)
	}
}

// settled waits until no network is degraded and nothing is owed any more.
func settled(r *rig.Rig) {
	r.T.Helper()
	for _, name := range r.Names() {
		r.Until(name+" is not degraded", func() bool { state, _ := r.State(name); return state != "degraded" })
	}
	r.Until("nothing is owed", func() bool {
		out, _ := r.Run("sh", "-c", "ls "+rig.RuntimeDir+"/leaving")
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
			r := rig.New(t)
			r.Configure(fmt.Sprintf("firewall_backend = %q\n", backend))
			r.Firewalld.SetZones(rig.AllZones...)
			r.Firewalld.Start("nftables")
			r.StartDaemon()
			r.Announce(silenceAnnounced...)
			flows := isolatedFlows(t, r)
			rules := func() bool {
				return strings.Contains(r.Table(), "leaving") || strings.Contains(rig.Chains(r.Host), "virbr0")
			}

			f := r.Follow()
			r.Firewalld.Signal(syscall.SIGSTOP)
			r.OK(r.Manager("RemoveNetwork", "lonely", rig.Opts("Persistent", true)))
			wantOther := func(when string) {
				t.Helper()
				if names := r.Names(); !slices.Equal(names, []string{"other"}) {
					t.Errorf("%s: networks %q", when, names)
				}
			}
			wantOther("removed")
			f.Until("NetworkRemoved")
			if r.File(rig.NetworksDir+"/lonely.xml") != "" || !rules() {
				t.Errorf("the file is there, or the rules are not:\n%s\n%s", r.Table(), rig.Chains(r.Host))
			}
			r.OK(r.Manager("Reapply"))
			r.OK(r.Manager("Reload"))
			for _, kill := range []bool{true, false} {
				r.Restart(kill)
				wantOther("restarted")
				if !rules() {
					t.Errorf("restarted without the rules:\n%s\n%s", r.Table(), rig.Chains(r.Host))
				}
			}
			r.Firewalld.Signal(syscall.SIGCONT)
			r.Until("virbr0 has left its zone", func() bool { return r.Firewalld.ZoneOf("virbr0") == "" })
			r.Until("the rules have gone", func() bool { return !rules() })
			settled(r)
			for _, flow := range flows {
				if report := flow.Stop(); report.Received > 0 || report.Sent < 100 {
					t.Errorf("out of the isolated network: %s", report)
				}
			}
			if n, err := reapplied(r); n != 0 || err != nil {
				t.Errorf("in the end a comparison mended %d, %v", n, err)
			}
		})
	}
}

func reapplied(r *rig.Rig) (n uint32, err error) {
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
func isolatedFlows(t *testing.T, r *rig.Rig) []*host.Flows {
	t.Helper()
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
	r.OK(r.AddXML(rig.NetXML("lonely", "virbr0", "isolated", rig.NatNet, rig.NatNet6), "Persistent", true))
	r.OK(r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.7.1.1/24")))
	r.Firewalld.WantZone("lonely", "virbr0", "libvirt")
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	var flows []*host.Flows
	for _, at := range []string{"203.0.113.1:7000", "[2001:db8:ffff::1]:7000"} {
		f, err := host.StartFlows(guest, internet, host.StreamConfig{To: netip.MustParseAddrPort(at), Rate: 200})
		rig.Must(t, err)
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
		"the same":       rig.NetXML("lonely", "virbr0", "isolated", rig.NatNet),
		"another name":   rig.NetXML("renamed", "virbr0", "isolated", rig.NatNet),
		"another bridge": rig.NetXML("lonely", "virbr2", "isolated", rig.NatNet),
		"open":           rig.NetXML("open", "virbr0", "open", rig.NatNet),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.WithFirewalld(t, rig.AllZones...)
			r.Announce(silenceAnnounced...)
			r.OK(r.AddXML(rig.NetXML("lonely", "virbr0", "isolated", rig.NatNet)))
			r.Firewalld.Signal(syscall.SIGSTOP)
			r.OK(r.Manager("RemoveNetwork", "lonely", rig.Opts()))
			r.OK(r.AddXML(doc))
			kept := strings.Contains(r.Table(), "leaving")
			if governed := name == "the same" || name == "another name"; kept == governed {
				t.Errorf("rules of the bridge that leaves: %v\n%s", kept, r.Table())
			}
			again := r.Names()
			r.OK(r.Manager("RemoveNetwork", again[0], rig.Opts())) // and once more
			if !strings.Contains(r.Table(), "leaving") {
				t.Errorf("removed again, no rules hold for virbr0:\n%s", r.Table())
			}
			r.OK(r.AddXML(doc))
			r.Firewalld.Signal(syscall.SIGCONT)
			settled(r)
			for _, bridge := range []string{"virbr0", "virbr2"} {
				want := ""
				if strings.Contains(doc, bridge) && name != "open" {
					want = "libvirt"
				}
				r.Until(bridge+" is in zone "+want, func() bool { return r.Firewalld.ZoneOf(bridge) == want })
			}
			if n, err := reapplied(r); n != 0 || err != nil {
				t.Errorf("in the end a comparison mended %d, %v", n, err)
			}
		})
	}
}
