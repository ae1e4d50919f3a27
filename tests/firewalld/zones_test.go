// Package firewalld holds the tests beside the real firewalld.
package firewalld

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// kinds are a network of each forward mode, with the zone that it belongs in
// where all our zones and policies are there, and where only zone libvirt is.
var kinds = []struct{ name, mode, zone, withoutPolicies string }{
	{"n", "nat", "libvirt", "libvirt"},
	{"i", "isolated", "libvirt", "libvirt"},
	{"r", "route", "libvirt-routed", "libvirt"},
	{"o", "open", "", ""},
}

// addKinds adds a network of each mode, with the bridges br-NAME.
func addKinds(r *rig.Rig, attribute string) {
	r.T.Helper()
	for i, k := range kinds {
		r.Bridge("br-"+k.name, fmt.Sprintf("10.7.%d.1/24", i))
		xml := rig.NetXML(k.name, "br-"+k.name, k.mode, fmt.Sprintf("10.7.%d.1/24", i))
		r.OK(r.AddXML(strings.Replace(xml, "<bridge ", "<bridge "+attribute+" ", 1)))
		if state, reason := r.State(k.name); state != "active" {
			r.T.Errorf("%s is %s: %s", k.mode, state, reason)
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
		{"all installed", rig.AllZones, ""},
		{"without policies", []string{"libvirt", "libvirt-routed"}, ""},
		{"without libvirt-routed", []string{"libvirt"}, ""},
		{"asked for", rig.AllZones, "zone='trusted'"},
		{"asked for without ours", nil, "zone='trusted'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rig.WithFirewalld(t, c.installed...)
			addKinds(r, c.attribute)
			for _, k := range kinds {
				want := k.withoutPolicies
				switch {
				case c.attribute != "":
					want = "trusted"
				case len(c.installed) == len(rig.AllZones):
					want = k.zone
				}
				r.Firewalld.WantZone(k.name, "br-"+k.name, want)
			}
			// firewalld remembers names: a bridge that is gone is unbound too.
			r.Must("ip", "link", "del", "br-n")
			for _, k := range kinds {
				r.OK(r.Manager("RemoveNetwork", k.name, rig.Opts()))
				if zone := r.Firewalld.ZoneOf("br-" + k.name); zone != "" {
					t.Errorf("after removal br-%s is in zone %q", k.name, zone)
				}
			}
		})
	}
}

// TestZoneOfAWaitingNetwork: the zone holds by name before the bridge exists.
func TestZoneOfAWaitingNetwork(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	if zone := r.Firewalld.ZoneOf("virbr0"); zone != "" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestMissingZone is D7: libvirt would not start the network.
func TestMissingZone(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t)
	r.Announce("state_code=zone-")
	r.Bridge("virbr0", rig.NatNet)
	f := r.Follow()
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "virtfirewallctl zones install") || !strings.Contains(reason, "virbr0") {
		t.Errorf("without zone libvirt the network is %s: %s", state, reason)
	}
	r.Firewalld.WantZone("default", "virbr0", "")
	if !rig.InTable(r.Table(), "default") {
		t.Error("a network without its zone has no rules")
	}
	f.All()
	var installed []string
	r.OK(r.Manager("InstallZones", rig.Opts()), &installed)
	if diff := cmp.Diff(rig.AllZones, rig.Sorted(installed)); diff != "" {
		t.Error(diff)
	}
	// At once: the state is right with the answer, and told before it.
	if state, reason := r.State("default"); state != "active" || reason != "" {
		t.Errorf("with its zone the network is %s: %s", state, reason)
	}
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
	told := strings.Join(f.All(), "\n")
	for _, want := range []string{"InstalledZones=[libvirt libvirt-routed", "BoundZone=libvirt", "State=active"} {
		if !strings.Contains(told, want) {
			t.Errorf("no signal told of %s; heard:\n%s", want, told)
		}
	}
	// The reload's signal comes later and must not disturb what is right.
	r.OK(r.Manager("Reapply"))
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
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
			r := rig.New(t)
			if c.firewalld {
				r.Firewalld.SetZones(rig.AllZones...)
				r.Firewalld.Start("nftables")
			}
			r.StartDaemon()
			r.OK(r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.9.0.1/24")))
			r.Bridge("virbr0", rig.NatNet)
			before := r.Everything()
			xml := strings.Replace(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "<bridge ", "<bridge zone='nowhere' ", 1)
			for name, call := range map[string]func() *godbus.Call{
				"add":        func() *godbus.Call { return r.AddXML(xml) },
				"persistent": func() *godbus.Call { return r.AddXML(xml, "Persistent", true) },
				"replace": func() *godbus.Call {
					return r.AddXML(strings.Replace(xml, "<name>default", "<name>other", 1), "Replace", true)
				},
				"update": func() *godbus.Call {
					return r.Network("other", "Update", rig.Opts("Zone", "nowhere", "TFTP", true), rig.Opts())
				},
				"bind": func() *godbus.Call { return r.Manager("BindInterface", "virbr1", "nowhere") },
			} {
				r.WantError(call(), c.want)
				if diff := cmp.Diff(before, r.Everything()); diff != "" {
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
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	bind := func(zone, want string) {
		t.Helper()
		var bound string
		r.OK(r.Manager("BindInterface", "virbr0", zone), &bound)
		if bound != want {
			t.Errorf("bound to %q, want %q", bound, want)
		}
		r.Firewalld.WantZone("default", "virbr0", want)
	}
	bind("trusted", "trusted")
	r.Must("firewall-cmd", "--reload")
	f := r.Follow()
	r.OK(r.Manager("Reapply"))
	r.Firewalld.WantZone("default", "virbr0", "trusted") // a reload does not end what was bound by hand
	f.All()
	r.OK(r.Manager("UnbindInterface", "virbr0"))
	r.Firewalld.WantZone("default", "virbr0", "")
	if told := f.All(); len(told) != 1 || told[0] != "PropertiesChanged default BoundZone=" {
		t.Errorf("unbinding was told as %q", told)
	}
	r.OK(r.Manager("Reapply"))
	r.Firewalld.WantZone("default", "virbr0", "")
	bind("", "libvirt")

	f.All()
	r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
	f.Until("BoundZone=work")
	r.Firewalld.WantZone("default", "virbr0", "work")
	r.WantError(r.Manager("BindInterface", "wan0", "trusted"), "NetworkNotFound")
	r.WantError(r.Manager("UnbindInterface", "wan0"), "NetworkNotFound")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	if zone := r.Firewalld.ZoneOf("virbr0"); zone != "" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestOpenNetworksZoneIsTheAdministrators: libvirt makes no zone call for open
// networks, so that an administrator's binding stays.
func TestOpenNetworksZoneIsTheAdministrators(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Bridge("virbr0", rig.NatNet)
	r.Must("firewall-cmd", "--permanent", "--zone=work", "--add-interface=virbr0")
	r.Must("firewall-cmd", "--reload")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "open", rig.NatNet)))
	r.OK(r.Manager("Reapply"))
	r.Firewalld.WantZone("default", "virbr0", "work")
	r.Firewalld.Restart(syscall.SIGTERM)
	r.Firewalld.AwaitZone("default", "virbr0", "work")
	r.OK(r.Manager("Reapply"))
	r.Firewalld.WantZone("default", "virbr0", "work")

	// A zone that the network asks for is its own, and goes with the wish.
	r.OK(r.Network("default", "Update", rig.Opts("Zone", "trusted"), rig.Opts()))
	r.Firewalld.WantZone("default", "virbr0", "trusted")
	r.OK(r.Network("default", "Update", rig.Opts("Zone", ""), rig.Opts()))
	r.Firewalld.WantZone("default", "virbr0", "")
	r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	if zone := r.Firewalld.ZoneOf("virbr0"); zone != "work" {
		t.Errorf("after removal virbr0 is in zone %q", zone)
	}
}

// TestZoneFollowsUpdate: mode, zone and bridge of a network change in one step
// with their zones.
func TestZoneFollowsUpdate(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Bridge("virbr0")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
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
		r.OK(r.Network("default", "Update", rig.Opts(c.settings...), rig.Opts()))
		r.Firewalld.WantZone("default", c.bridge, c.zone)
		if other := map[string]string{"virbr0": "virbr9", "virbr9": "virbr0"}[c.bridge]; r.Firewalld.ZoneOf(other) != "" {
			t.Errorf("%v: %s is still in zone %q", c.settings, other, r.Firewalld.ZoneOf(other))
		}
	}
	r.OK(r.AddXML(rig.NetXML("default", "virbr8", "nat", rig.NatNet), "Replace", true))
	r.Firewalld.WantZone("default", "virbr8", "libvirt")
	if zone := r.Firewalld.ZoneOf("virbr0"); zone != "" {
		t.Errorf("the replaced network's bridge is in zone %q", zone)
	}
}
