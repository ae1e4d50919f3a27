package tests

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPolkitDefaults: without any rule everybody reads, and nobody but root
// changes anything.
func TestPolkitDefaults(t *testing.T) {
	t.Parallel()
	r := polkitRig(t, "")
	p := r.as(alice)
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	r.must(p.Manager("ListNetworks"))
	r.must(p.Network("lab", "GetRuleset"))
	call := p.AddXML(netXML("mine", "virbr6", "nat", "10.6.0.1/24"))
	r.wantError(call, needsPeople)
	if text := message(call); !strings.Contains(text, "sudo") {
		t.Errorf("the message does not say what to do: %s", text)
	}
	// Nobody is there to ask.
	call = p.interactively(managerPath, managerName+".RemoveNetwork", "lab", opts())
	r.wantDenied(call, "no agent", "pkttyagent")
	r.must(r.Manager("RemoveNetwork", "lab", opts()))
}

// oneUserOneNetwork is the second example, which is a comment, for a user.
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
	example, err := os.ReadFile("../polkit/50-virtfirewalld.rules")
	fatal(t, err)
	r := newRig(t)
	r.Announce("state_code=forward-device-missing")
	r.join("libvirt", alice)
	r.rules(string(example) +
		oneUserOneNetwork(t, string(example), "u2002") +
		rule("manage-networks", `subject.user == "u2003"`, "NO") +
		rule("reload", `subject.user == "u2003"`, "YES"))
	r.Polkit()
	r.StartDaemon()
	a, b, c := r.as(alice), r.as(bob), r.as(carol)

	// By group, with the example that is shipped.
	r.must(a.AddXML(netXML("lab", "virbr1", "nat", "10.1.0.1/24")))
	r.must(a.Network("lab", "Update", opts("TFTP", true), opts()))
	r.wantError(a.Manager("Reload"), needsPeople)
	r.wantError(a.Manager("BindInterface", "virbr1", "trusted"), needsPeople)

	// By network and bridge: neither side of a change can be another's.
	r.must(b.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/24")))
	r.must(b.Network("dev", "Update", opts("TFTP", true), opts()))
	r.must(b.AddXML(netXML("dev", "virbr5", "route", "10.5.0.1/24"), "Replace", true))
	for key, value := range map[string]any{ // and none of its values
		"Addresses": []string{"10.6.0.1/24"}, "Routes": []string{"10.6.0.0/24"}, "ForwardDevices": []string{"wan0"},
		"NATAddressRange": "203.0.113.5-203.0.113.9", "NATPortRange": "2000-3000", "Bridge": "virbr0",
	} {
		r.wantError(b.Network("dev", "Update", opts(key, value), opts()), needsPeople)
		r.must(a.Network("dev", "Update", opts("ForwardMode", "nat", key, value), opts()))
		for what, call := range map[string]error{
			"back":     b.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
			"a change": b.Network("dev", "Update", opts("TFTP", false), opts()).Err,
			"removal":  b.Manager("RemoveNetwork", "dev", opts()).Err,
		} {
			if errorName(call) != needsPeople {
				t.Errorf("%s is another's, and %s: %v", key, what, call)
			}
		}
		r.must(a.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true))
	}
	for what, call := range map[string]error{
		"another subnet by Replace":    b.AddXML(netXML("dev", "virbr5", "nat", "10.6.0.1/24"), "Replace", true).Err,
		"a second subnet by Replace":   b.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/24", "2001:db8:5::1/64"), "Replace", true).Err,
		"a wider subnet":               b.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/16"), "Replace", true).Err,
		"another bridge by Replace":    b.AddXML(netXML("dev", "virbr0", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"another bridge by Update":     b.Network("dev", "Update", opts("Bridge", "virbr0"), opts()).Err,
		"another network":              b.AddXML(netXML("lab", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"its name on another's bridge": b.AddXML(netXML("dev", "virbr1", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"removing another":             b.Manager("RemoveNetwork", "lab", opts()).Err,
	} {
		if errorName(call) != needsPeople {
			t.Errorf("%s: %v", what, call)
		}
	}
	r.must(a.Network("dev", "Update", opts("Bridge", "virbr6"), opts()))
	for what, call := range map[string]error{
		"back from another bridge": b.Network("dev", "Update", opts("Bridge", "virbr5"), opts()).Err,
		"the same by Replace":      b.AddXML(netXML("dev", "virbr5", "nat", "10.5.0.1/24"), "Replace", true).Err,
		"removing it from another": b.Manager("RemoveNetwork", "dev", opts()).Err,
	} {
		if errorName(call) != needsPeople {
			t.Errorf("%s: %v", what, call)
		}
	}
	r.must(a.Network("dev", "Update", opts("Bridge", "virbr5"), opts()))
	r.must(b.Manager("RemoveNetwork", "dev", opts()))

	// A plain no, and another action.
	r.wantDenied(c.AddXML(netXML("mine", "virbr7", "isolated")), "manage-networks", "user 2003", "sudo")
	r.must(c.Manager("Reload"))
	if names := r.names(); len(names) != 1 || names[0] != "lab" {
		t.Errorf("there are the networks %q", names)
	}
	log := r.Daemon.Log()
	for _, want := range []string{"denied a call", "user=2003", "caller=" + c.conn.Names()[0], "network=mine", "bridge=virbr7"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log of the denial lacks %q", want)
		}
	}
}

// TestPolkitZones: the right to manage networks opens no zone of the host's own,
// and takes no bridge out of one.
func TestPolkitZones(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rules(rule("manage-networks", `true`, "YES") + rule("manage-zones", `subject.user == "u2002"`, "YES"))
	r.Polkit()
	r.Firewalld("nftables")
	r.StartDaemon()
	r.must(r.Manager("InstallZones", opts("Force", true)))
	a, b := r.as(alice), r.as(bob)
	zoned := func(name, bridge, zone string) string {
		return strings.Replace(netXML(name, bridge, "isolated"), "<bridge ", "<bridge zone='"+zone+"' ", 1)
	}
	r.wantError(a.AddXML(zoned("lab", "virbr1", "trusted")), needsPeople)
	r.wantError(a.Manager("AddNetwork", "lab", opts("Bridge", "virbr1", "Zone", "trusted"), opts()), needsPeople)
	r.must(a.AddXML(zoned("lab", "virbr1", "libvirt")))
	r.must(a.Network("lab", "Update", opts("Zone", "libvirt-routed"), opts()))
	r.wantError(a.Network("lab", "Update", opts("Zone", "trusted"), opts()), needsPeople)
	r.wantError(a.AddXML(zoned("lab", "virbr1", "trusted"), "Replace", true), needsPeople)
	r.wantError(a.Manager("BindInterface", "virbr1", "trusted"), needsPeople)

	r.must(b.Network("lab", "Update", opts("Zone", "drop"), opts()))
	leave := func(what string) {
		t.Helper()
		r.wantError(a.Manager("UnbindInterface", "virbr1"), needsPeople)
		r.wantError(a.Network("lab", "Update", opts("Zone", ""), opts()), needsPeople)
		r.wantError(a.AddXML(netXML("lab", "virbr2", "isolated"), "Replace", true), needsPeople)
		r.wantError(a.Manager("RemoveNetwork", "lab", opts()), needsPeople)
		if got := r.Property("lab", "BoundZone"); got != "drop" {
			t.Errorf("%s: the bridge is in zone %q", what, got)
		}
	}
	leave("by its setting")
	r.must(b.Network("lab", "Update", opts("Zone", ""), opts()))
	r.must(b.Manager("BindInterface", "virbr1", "drop"))
	leave("by hand")
	r.must(b.Manager("UnbindInterface", "virbr1"))
	r.must(a.Manager("RemoveNetwork", "lab", opts()))
}
