// Package polkit holds the tests with the real polkitd.
package polkit

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestPolkitDefaults: without any rule every user may read, and only root may
// change anything.
func TestPolkitDefaults(t *testing.T) {
	t.Parallel()
	r := rig.WithPolkit(t, "")
	p := r.As(rig.Alice)
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	r.OK(p.Manager("ListNetworks"))
	r.OK(p.Network("lab", "GetRuleset"))
	call := p.AddXML(rig.NetXML("mine", "virbr6", "nat", "10.6.0.1/24"))
	r.WantError(call, rig.NeedsPeople)
	if text := rig.Message(call); !strings.Contains(text, "sudo") {
		t.Errorf("the message does not say what to do: %s", text)
	}
	// Nobody is there to ask.
	call = p.Interactively(rig.ManagerPath, rig.ManagerName+".RemoveNetwork", "lab", rig.Opts())
	r.WantDenied(call, "no agent", "pkttyagent")
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts()))
}

// oneUserOneNetwork returns the second example, which is a comment, for a user.
func oneUserOneNetwork(t *testing.T, example, user string) string {
	t.Helper()
	_, commented, found := strings.Cut(example, "// polkit.addRule")
	if !found || !strings.Contains(commented, `"bob"`) {
		t.Fatal("the example has no rule for one user")
	}
	return strings.ReplaceAll(strings.ReplaceAll("polkit.addRule"+commented, "\n// ", "\n"), `"bob"`, strconv.Quote(user))
}

// TestPolkitRules are an administrator's, by user, by group and by network.
func TestPolkitRules(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile(rig.Source("polkit/50-virtfirewalld.rules"))
	rig.Must(t, err)
	r := rig.New(t)
	r.Announce("state_code=forward-device-missing")
	r.Polkit.Join("libvirt", rig.Alice)
	r.Polkit.Rules(string(example) +
		oneUserOneNetwork(t, string(example), "u2002") +
		rig.Rule("manage-networks", `subject.user == "u2003"`, "NO") +
		rig.Rule("reload", `subject.user == "u2003"`, "YES"))
	r.Polkit.Start()
	r.StartDaemon()
	a, b, c := r.As(rig.Alice), r.As(rig.Bob), r.As(rig.Carol)

	// By group, with the example that is shipped.
	r.OK(a.AddXML(rig.NetXML("lab", "virbr1", "nat", "10.1.0.1/24")))
	r.OK(a.Network("lab", "Update", rig.Opts("TFTP", true), rig.Opts()))
	r.WantError(a.Manager("Reload"), rig.NeedsPeople)
	r.WantError(a.Manager("BindInterface", "virbr1", "trusted"), rig.NeedsPeople)

	// By network and bridge: neither side of a change can be another's.
	r.OK(b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24")))
	r.OK(b.Network("dev", "Update", rig.Opts("TFTP", true), rig.Opts()))
	r.OK(b.AddXML(rig.NetXML("dev", "virbr5", "route", "10.5.0.1/24"), "Replace", true))
	r.OK(b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true)) // a mode that has all of these
	for key, value := range map[string]any{                                            // and none of its values
		"Addresses": []string{"10.6.0.1/24"}, "Routes": []string{"10.6.0.0/24"}, "ForwardDevices": []string{"wan0"},
		"NATAddressRange": "203.0.113.5-203.0.113.9", "NATPortRange": "2000-3000", "Bridge": "virbr0",
	} {
		r.WantError(b.Network("dev", "Update", rig.Opts(key, value), rig.Opts()), rig.NeedsPeople)
		r.OK(a.Network("dev", "Update", rig.Opts("ForwardMode", "nat", key, value), rig.Opts()))
		for what, call := range map[string]error{
			"back":     b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
			"a change": b.Network("dev", "Update", rig.Opts("TFTP", false), rig.Opts()).Err,
			"removal":  b.Manager("RemoveNetwork", "dev", rig.Opts()).Err,
		} {
			if rig.ErrorName(call) != rig.NeedsPeople {
				t.Errorf("%s is another's, and %s: %v", key, what, call)
			}
		}
		r.OK(a.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true))
	}
	for what, call := range map[string]error{
		"another subnet by Replace":    b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.6.0.1/24"), "Replace", true).Err,
		"a second subnet by Replace":   b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24", "2001:db8:5::1/64"), "Replace", true).Err,
		"a wider subnet":               b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/16"), "Replace", true).Err,
		"another bridge by Replace":    b.AddXML(rig.NetXML("dev", "virbr0", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"another bridge by Update":     b.Network("dev", "Update", rig.Opts("Bridge", "virbr0"), rig.Opts()).Err,
		"another network":              b.AddXML(rig.NetXML("lab", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"its name on another's bridge": b.AddXML(rig.NetXML("dev", "virbr1", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"removing another":             b.Manager("RemoveNetwork", "lab", rig.Opts()).Err,
	} {
		if rig.ErrorName(call) != rig.NeedsPeople {
			t.Errorf("%s: %v", what, call)
		}
	}
	r.OK(a.Network("dev", "Update", rig.Opts("Bridge", "virbr6"), rig.Opts()))
	for what, call := range map[string]error{
		"back from another bridge": b.Network("dev", "Update", rig.Opts("Bridge", "virbr5"), rig.Opts()).Err,
		"the same by Replace":      b.AddXML(rig.NetXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"removing it from another": b.Manager("RemoveNetwork", "dev", rig.Opts()).Err,
	} {
		if rig.ErrorName(call) != rig.NeedsPeople {
			t.Errorf("%s: %v", what, call)
		}
	}
	r.OK(a.Network("dev", "Update", rig.Opts("Bridge", "virbr5"), rig.Opts()))
	r.OK(b.Manager("RemoveNetwork", "dev", rig.Opts()))

	// A plain no, and another action.
	r.WantDenied(c.AddXML(rig.NetXML("mine", "virbr7", "isolated")), "manage-networks", "user 2003", "sudo")
	r.OK(c.Manager("Reload"))
	if names := r.Names(); len(names) != 1 || names[0] != "lab" {
		t.Errorf("there are the networks %q", names)
	}
	log := r.Daemon.Log()
	for _, want := range []string{"denied a call", "user=2003", "caller=" + c.Conn.Names()[0], "network=mine", "bridge=virbr7"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log of the denial lacks %q", want)
		}
	}
}

// TestPolkitZones: the right to manage networks opens no zone of the host's own,
// and takes no bridge out of one.
func TestPolkitZones(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Polkit.Rules(rig.Rule("manage-networks", `true`, "YES") + rig.Rule("manage-zones", `subject.user == "u2002"`, "YES"))
	r.Polkit.Start()
	r.Firewalld.Start("nftables")
	r.StartDaemon()
	r.OK(r.Manager("InstallZones", rig.Opts("Force", true)))
	a, b := r.As(rig.Alice), r.As(rig.Bob)
	zoned := func(name, bridge, zone string) string {
		return strings.Replace(rig.NetXML(name, bridge, "isolated"), "<bridge ", "<bridge zone='"+zone+"' ", 1)
	}
	r.WantError(a.AddXML(zoned("lab", "virbr1", "trusted")), rig.NeedsPeople)
	r.WantError(a.Manager("AddNetwork", "lab", rig.Opts("Bridge", "virbr1", "Zone", "trusted"), rig.Opts()), rig.NeedsPeople)
	r.OK(a.AddXML(zoned("lab", "virbr1", "libvirt")))
	r.OK(a.Network("lab", "Update", rig.Opts("Zone", "libvirt-routed"), rig.Opts()))
	r.WantError(a.Network("lab", "Update", rig.Opts("Zone", "trusted"), rig.Opts()), rig.NeedsPeople)
	r.WantError(a.AddXML(zoned("lab", "virbr1", "trusted"), "Replace", true), rig.NeedsPeople)
	r.WantError(a.Manager("BindInterface", "virbr1", "trusted"), rig.NeedsPeople)

	r.OK(b.Network("lab", "Update", rig.Opts("Zone", "drop"), rig.Opts()))
	leave := func(what string) {
		t.Helper()
		r.WantError(a.Manager("UnbindInterface", "virbr1"), rig.NeedsPeople)
		r.WantError(a.Network("lab", "Update", rig.Opts("Zone", ""), rig.Opts()), rig.NeedsPeople)
		r.WantError(a.AddXML(rig.NetXML("lab", "virbr2", "isolated"), "Replace", true), rig.NeedsPeople)
		r.WantError(a.Manager("RemoveNetwork", "lab", rig.Opts()), rig.NeedsPeople)
		if got := r.Property("lab", "BoundZone"); got != "drop" {
			t.Errorf("%s: the bridge is in zone %q", what, got)
		}
	}
	leave("by its setting")
	r.OK(b.Network("lab", "Update", rig.Opts("Zone", ""), rig.Opts()))
	r.OK(b.Manager("BindInterface", "virbr1", "drop"))
	leave("by hand")
	r.OK(b.Manager("UnbindInterface", "virbr1"))
	r.OK(a.Manager("RemoveNetwork", "lab", rig.Opts()))
}
