package tests

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const zonesDir = "../zones/firewalld/"

// allZones are the service's zones and policies, as InstalledZones has them.
var allZones = []string{"libvirt", "libvirt-routed", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"}

// firewalldCall calls the real firewalld, never starting it.
func (r *rig) firewalldCall(method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(callTimeout))
	defer cancel()
	return r.bus.Object("org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1").
		CallWithContext(ctx, "org.fedoraproject.FirewallD1."+method, godbus.FlagNoAutoStart, args...)
}

// zoneOf is the zone that firewalld itself says an interface is in; "" for none.
func (r *rig) zoneOf(iface string) (zone string) {
	r.t.Helper()
	call := r.firewalldCall("zone.getZoneOfInterface", iface)
	if call.Err != nil && strings.Contains(call.Err.Error(), "UNKNOWN_INTERFACE") {
		return ""
	}
	r.must(call, &zone)
	return zone
}

// wantZone compares the zone of a network's bridge, as firewalld and as the
// service has it.
func (r *rig) wantZone(network, bridge, want string) {
	r.t.Helper()
	if got := r.zoneOf(bridge); got != want {
		r.t.Errorf("firewalld has %s in zone %q, want %q", bridge, got, want)
	}
	if got := r.Property(network, "BoundZone"); got != want {
		r.t.Errorf("the service says that %s is in zone %q, want %q", bridge, got, want)
	}
}

// zoneFiles leaves exactly these of our zones and policies where firewalld
// finds them as it starts, as libvirt's package has them. The machine may have
// that package.
func (r *rig) zoneFiles(names ...string) {
	r.t.Helper()
	r.Must("sh", "-c", "rm -f /usr/lib/firewalld/zones/libvirt*.xml /usr/lib/firewalld/policies/libvirt*.xml")
	for _, name := range names {
		folder := "policies/"
		if name == "libvirt" || name == "libvirt-routed" {
			folder = "zones/"
		}
		if err := r.CopyIn(zonesDir+folder+name+".xml", "/usr/lib/firewalld/"+folder+name+".xml"); err != nil {
			r.t.Fatal(err)
		}
	}
}

// walledRig is a host with the service beside a firewalld that has these zones
// and policies of ours.
func walledRig(t testing.TB, zones ...string) *rig {
	t.Helper()
	r := newRig(t)
	r.zoneFiles(zones...)
	r.Firewalld("nftables")
	r.StartDaemon()
	return r
}

// kinds are a network of each forward mode, with the zone that it belongs in
// where all our zones and policies are there, and where only zone libvirt is.
var kinds = []struct{ name, mode, zone, withoutPolicies string }{
	{"n", "nat", "libvirt", "libvirt"},
	{"i", "isolated", "libvirt", "libvirt"},
	{"r", "route", "libvirt-routed", "libvirt"},
	{"o", "open", "", ""},
}

// addKinds adds a network of each mode, with the bridges br-NAME.
func addKinds(r *rig, attribute string) {
	r.t.Helper()
	for i, k := range kinds {
		r.Bridge("br-"+k.name, fmt.Sprintf("10.7.%d.1/24", i))
		xml := netXML(k.name, "br-"+k.name, k.mode, fmt.Sprintf("10.7.%d.1/24", i))
		r.must(r.AddXML(strings.Replace(xml, "<bridge ", "<bridge "+attribute+" ", 1)))
		if state, reason := r.State(k.name); state != "active" {
			r.t.Errorf("%s is %s: %s", k.mode, state, reason)
		}
	}
}

func TestZoneOfEachMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		installed []string
		attribute string
	}{
		{"all installed", allZones, ""},
		{"without policies", []string{"libvirt", "libvirt-routed"}, ""},
		{"without libvirt-routed", []string{"libvirt"}, ""},
		{"asked for", allZones, "zone='trusted'"},
		{"asked for without ours", nil, "zone='trusted'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := walledRig(t, c.installed...)
			addKinds(r, c.attribute)
			for _, k := range kinds {
				want := k.withoutPolicies
				switch {
				case c.attribute != "":
					want = "trusted"
				case len(c.installed) == len(allZones):
					want = k.zone
				}
				r.wantZone(k.name, "br-"+k.name, want)
			}
			// firewalld remembers names: a bridge that is gone is unbound too.
			r.Must("ip", "link", "del", "br-n")
			for _, k := range kinds {
				r.must(r.Manager("RemoveNetwork", k.name, opts()))
				if zone := r.zoneOf("br-" + k.name); zone != "" {
					t.Errorf("after removal br-%s is in zone %q", k.name, zone)
				}
			}
		})
	}
}

// TestZoneOfAWaitingNetwork: the zone holds by name before there is a bridge.
func TestZoneOfAWaitingNetwork(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	r.wantZone("default", "virbr0", "libvirt")
	r.must(r.Manager("RemoveNetwork", "default", opts()))
	if zone := r.zoneOf("virbr0"); zone != "" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestMissingZone is D7: libvirt would not start the network.
func TestMissingZone(t *testing.T) {
	t.Parallel()
	r := walledRig(t)
	r.Announce("state_code=zone-")
	r.Bridge("virbr0", natNet)
	f := r.Follow()
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "virtfirewallctl zones install") || !strings.Contains(reason, "virbr0") {
		t.Errorf("without zone libvirt the network is %s: %s", state, reason)
	}
	r.wantZone("default", "virbr0", "")
	if !strings.Contains(r.Table(), "chain net_default_from") {
		t.Error("a network without its zone has no rules")
	}
	f.all()
	var installed []string
	r.must(r.Manager("InstallZones", opts()), &installed)
	if diff := cmp.Diff(allZones, sorted(installed)); diff != "" {
		t.Error(diff)
	}
	// At once: the state is right with the answer, and told before it.
	if state, reason := r.State("default"); state != "active" || reason != "" {
		t.Errorf("with its zone the network is %s: %s", state, reason)
	}
	r.wantZone("default", "virbr0", "libvirt")
	told := strings.Join(f.all(), "\n")
	for _, want := range []string{"InstalledZones=[libvirt libvirt-routed", "BoundZone=libvirt", "State=active"} {
		if !strings.Contains(told, want) {
			t.Errorf("no signal told of %s; heard:\n%s", want, told)
		}
	}
	// The reload's signal comes later and must not disturb what is right.
	r.must(r.Manager("Reapply"))
	r.wantZone("default", "virbr0", "libvirt")
}

func TestZoneByNameThatCannotBeHad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		firewalld bool
		want      string
	}{{"firewalld down", false, "FirewalldNotRunning"}, {"no such zone", true, "ZoneNotFound"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if c.firewalld {
				r.zoneFiles(allZones...)
				r.Firewalld("nftables")
			}
			r.StartDaemon()
			r.must(r.AddXML(netXML("other", "virbr1", "nat", "10.9.0.1/24")))
			r.Bridge("virbr0", natNet)
			before := r.everything()
			xml := strings.Replace(netXML("default", "virbr0", "nat", natNet), "<bridge ", "<bridge zone='nowhere' ", 1)
			for name, call := range map[string]func() *godbus.Call{
				"add":        func() *godbus.Call { return r.AddXML(xml) },
				"persistent": func() *godbus.Call { return r.AddXML(xml, "Persistent", true) },
				"replace": func() *godbus.Call {
					return r.AddXML(strings.Replace(xml, "<name>default", "<name>other", 1), "Replace", true)
				},
				"update": func() *godbus.Call {
					return r.Network("other", "Update", opts("Zone", "nowhere", "TFTP", true), opts())
				},
				"bind": func() *godbus.Call { return r.Manager("BindInterface", "virbr1", "nowhere") },
			} {
				r.wantError(call(), c.want)
				if diff := cmp.Diff(before, r.everything()); diff != "" {
					t.Errorf("%s failed and changed something (-before +after):\n%s", name, diff)
				}
			}
		})
	}
}

// TestBindByHand binds and unbinds with the service's own methods, and sees
// what others do with firewall-cmd.
func TestBindByHand(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	bind := func(zone, want string) {
		t.Helper()
		var bound string
		r.must(r.Manager("BindInterface", "virbr0", zone), &bound)
		if bound != want {
			t.Errorf("bound to %q, want %q", bound, want)
		}
		r.wantZone("default", "virbr0", want)
	}
	bind("trusted", "trusted")
	r.Must("firewall-cmd", "--reload")
	f := r.Follow()
	r.must(r.Manager("Reapply"))
	r.wantZone("default", "virbr0", "trusted") // a reload does not end what was bound by hand
	f.all()
	r.must(r.Manager("UnbindInterface", "virbr0"))
	r.wantZone("default", "virbr0", "")
	if told := f.all(); len(told) != 1 || told[0] != "PropertiesChanged default BoundZone=" {
		t.Errorf("unbinding was told as %q", told)
	}
	r.must(r.Manager("Reapply"))
	r.wantZone("default", "virbr0", "")
	bind("", "libvirt")

	f.all()
	r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
	f.until("BoundZone=work")
	r.wantZone("default", "virbr0", "work")
	r.wantError(r.Manager("BindInterface", "wan0", "trusted"), "NetworkNotFound")
	r.wantError(r.Manager("UnbindInterface", "wan0"), "NetworkNotFound")
	r.must(r.Manager("RemoveNetwork", "default", opts()))
	if zone := r.zoneOf("virbr0"); zone != "" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestOpenNetworksZoneIsTheAdministrators: libvirt makes no zone call for open
// networks, so that what somebody else bound stays bound.
func TestOpenNetworksZoneIsTheAdministrators(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Bridge("virbr0", natNet)
	r.Must("firewall-cmd", "--permanent", "--zone=work", "--add-interface=virbr0")
	r.Must("firewall-cmd", "--reload")
	r.must(r.AddXML(netXML("default", "virbr0", "open", natNet)))
	r.must(r.Manager("Reapply"))
	r.wantZone("default", "virbr0", "work")
	r.restartFirewalld(syscall.SIGTERM)
	r.awaitZone("default", "virbr0", "work")
	r.must(r.Manager("Reapply"))
	r.wantZone("default", "virbr0", "work")

	// A zone that the network asks for is its own, and goes with the wish.
	r.must(r.Network("default", "Update", opts("Zone", "trusted"), opts()))
	r.wantZone("default", "virbr0", "trusted")
	r.must(r.Network("default", "Update", opts("Zone", ""), opts()))
	r.wantZone("default", "virbr0", "")
	r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
	r.must(r.Manager("RemoveNetwork", "default", opts()))
	if zone := r.zoneOf("virbr0"); zone != "work" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestZoneFollowsUpdate: mode, zone and bridge of a network change in one step
// with their zones.
func TestZoneFollowsUpdate(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Bridge("virbr0")
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	for _, c := range []struct {
		settings     []any
		bridge, zone string
	}{
		{[]any{"ForwardMode", "route"}, "virbr0", "libvirt-routed"},
		{[]any{"Zone", "trusted"}, "virbr0", "trusted"},
		{[]any{"Zone", "", "Bridge", "virbr9"}, "virbr9", "libvirt-routed"},
		{[]any{"ForwardMode", "open"}, "virbr9", ""},
		{[]any{"ForwardMode", "isolated", "Bridge", "virbr0"}, "virbr0", "libvirt"},
	} {
		r.must(r.Network("default", "Update", opts(c.settings...), opts()))
		r.wantZone("default", c.bridge, c.zone)
		if other := map[string]string{"virbr0": "virbr9", "virbr9": "virbr0"}[c.bridge]; r.zoneOf(other) != "" {
			t.Errorf("%v: %s is still in zone %q", c.settings, other, r.zoneOf(other))
		}
	}
	r.must(r.AddXML(netXML("default", "virbr8", "nat", natNet), "Replace", true))
	r.wantZone("default", "virbr8", "libvirt")
	if zone := r.zoneOf("virbr0"); zone != "" {
		t.Errorf("the replaced network's bridge is in zone %q", zone)
	}
}

// awaitZone waits until firewalld and the service agree on a zone.
func (r *rig) awaitZone(network, bridge, want string) {
	r.t.Helper()
	r.until(bridge+" is in zone "+want, func() bool {
		return r.zoneOf(bridge) == want && r.Property(network, "BoundZone") == want
	})
}
