package libvirt

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// The networks that libvirt starts before the service comes.
const (
	firstXML = "<network><name>first</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='virbr0' stp='off'/>" +
		"<ip address='192.168.122.1' prefix='24'><dhcp><range start='192.168.122.100' end='192.168.122.120'/></dhcp></ip>" +
		"<ip family='ipv6' address='2001:db8:122::1' prefix='64'/></network>"
	secondXML = "<network><name>second</name><forward mode='nat'/><bridge name='virbr1' stp='off'/>" +
		"<ip address='10.2.0.1' prefix='24'><dhcp><range start='10.2.0.100' end='10.2.0.120'/></dhcp></ip>" +
		"<ip family='ipv6' address='2001:db8:2::1' prefix='64'/></network>"
)

// libvirtRig returns a host where libvirt has started networks on iptables, and the
// service has not been started.
func libvirtRig(t *testing.T, variant string, xmls ...string) (*rig.Rig, *rig.Libvirt) {
	t.Helper()
	r := rig.New(t)
	rig.SetIptables(r.Host, variant)
	p := rig.LibvirtOn(t, r.Host)
	for _, xml := range xmls {
		rig.Must(t, p.StartNetwork(nameIn(xml), xml))
	}
	return r, p
}

func nameIn(xml string) string {
	_, rest, _ := strings.Cut(xml, "<name>")
	name, _, _ := strings.Cut(rest, "</name>")
	return name
}

// withoutLines returns a text without the lines that have one of these parts, but
// for other people's.
func withoutLines(text string, parts ...string) string {
	var b strings.Builder
lines:
	for line := range strings.Lines(text) {
		for _, part := range parts {
			if strings.Contains(line, part) && !strings.Contains(line, "hook") {
				continue lines
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// withoutEmpty leaves out libvirt's chains that have no rules, and their jumps.
func withoutEmpty(rules string) string {
	tables := strings.SplitAfter(rules, "COMMIT\n")
	for i, table := range tables {
		for _, chain := range []string{"INP", "OUT", "FWX", "FWI", "FWO", "PRT"} {
			if !strings.Contains(table, "-A LIBVIRT_"+chain+" ") {
				tables[i] = withoutLines(tables[i], "LIBVIRT_"+chain)
			}
		}
	}
	return strings.Join(tables, "")
}

// TestNetworksThatLibvirtLeft: libvirt is gone and its rules are there. Those for
// a network of the service are removed once libvirt no longer has the network,
// and nothing else is.
func TestNetworksThatLibvirtLeft(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r, p := libvirtRig(t, variant, firstXML, secondXML)
			first, second := p.Dump(t, "first"), p.Dump(t, "second")
			p.Kill()
			for _, rule := range []string{
				"-I LIBVIRT_FWI -d 192.168.122.10/32 -o virbr0 -p tcp --dport 80 -m comment --comment hook -j ACCEPT",
				"-t nat -A POSTROUTING -s 10.9.0.0/24 -j MASQUERADE",
				"-A FORWARD -i virbr0 -m comment --comment hook -j ACCEPT", "-A FORWARD -i virbr00 -j ACCEPT",
			} {
				r.Must(append([]string{"iptables", "-w"}, strings.Fields(rule)...)...)
			}
			before := rig.SavedRules(t, r.Host)
			without1 := withoutLines(before, " virbr0 ", " 192.168.122.0/24 ", " 2001:db8:122::/64 ")
			without2 := withoutEmpty(withoutLines(without1, " virbr1 ", " 10.2.0.0/24 ", " 2001:db8:2::/64 "))
			r.StartDaemon()
			if diff := cmp.Diff(before, rig.SavedRules(t, r.Host)); diff != "" {
				t.Error("without networks of its own the service changed:\n", diff)
			}
			r.OK(r.AddXML(first))
			r.AwaitState("first", "active")
			r.OK(r.Manager("Reapply"))
			awaitSame(r, "libvirt has the first network, though it does not run", before)
			p.Forget("first")
			awaitSame(r, "the first network is taken over", without1)
			if text := r.Must("sh", "-c", "iptables-save; ip6tables-save"); !strings.Contains(text, "-i virbr1 ") {
				t.Errorf("libvirt's rules for the second network are not there:\n%s", text)
			}
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
			rig.Natted(t, guest, internet, "taken over")
			rig.Guarded(t, guest, internet, "taken over")
			r.OK(r.AddXML(second))
			p.Forget("second")
			awaitSame(r, "the second network is taken over", without2)
			rig.Natted(t, guest, internet, "all taken over")
			for _, name := range []string{"first", "second"} {
				if state, reason := r.State(name); state != "active" {
					t.Errorf("%s is %s: %s", name, state, reason)
				}
				r.OK(r.Manager("RemoveNetwork", name, rig.Opts()))
			}
			if r.Table() != "" {
				t.Errorf("left behind:\n%s", r.Table())
			}
			awaitSame(r, "all is removed", without2)
		})
	}
}

// awaitSame waits until the iptables rules are these, but for the tables that
// have nothing in them.
func awaitSame(r *rig.Rig, what, want string) {
	r.T.Helper()
	awaitRules(r, used, what, want)
}

// awaitRules waits until the iptables rules are these after they have been
// through a function.
func awaitRules(r *rig.Rig, through func(string) string, what, want string) {
	r.T.Helper()
	got := ""
	want = through(want)
	if !rig.Await(10*time.Second, func() bool { got = through(rig.SavedRules(r.T, r.Host)); return got == want }) {
		r.T.Fatalf("%s, and iptables has (-want +got):\n%s\n%s", what, cmp.Diff(want, got), r.Daemon.Log())
	}
}

// used leaves out built-in chains, whose policies nobody set here, tables'
// frames, and the service's help with DHCP checksums.
func used(rules string) string {
	var b strings.Builder
	for line := range strings.Lines(withoutLines(rules, "VIRTFW_DHCP", "COMMIT")) {
		if !strings.HasPrefix(line, "*") && !strings.HasSuffix(line, " ACCEPT\n") || strings.HasPrefix(line, "-") {
			b.WriteString(line)
		}
	}
	return b.String()
}

const noRules = "# iptables-save\n# ip6tables-save\n"

// TestRevertingEqualsLibvirt is the Fedora change's "Reverting": the line in
// libvirt's file brings what libvirt itself makes.
func TestRevertingEqualsLibvirt(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			xmls := []string{firstXML, secondXML, rig.Corpus(t, "isolated.xml"), rig.Corpus(t, "route-ipv6.xml")}
			slices.SortFunc(xmls, func(a, b string) int { return strings.Compare(nameIn(a), nameIn(b)) })
			peer := rig.NewLibvirt(t, variant)
			r := rig.New(t)
			r.Announce(rig.Uncovered)
			rig.SetIptables(r.Host, variant)
			r.StartDaemon()
			for _, xml := range xmls {
				rig.Must(t, peer.StartNetwork(nameIn(xml), xml))
				r.OK(r.AddXML(peer.Dump(t, nameIn(xml))))
			}
			r.Write("/etc/libvirt/network.conf", "firewall_backend = \"iptables\"\n")
			r.StopDaemon()
			r.StartDaemon()
			plain := func(rules string) string { return withoutLines(rules, "*", "COMMIT") }
			awaitRules(r, plain, "by a restart", rig.SavedRules(t, peer.Host))
			if r.Table() != "" {
				t.Errorf("the nftables table is still there:\n%s", r.Table())
			}
			rig.Must(t, r.WriteFile("/etc/libvirt/network.conf", nil, 0o644))
			r.OK(r.Manager("Reload"))
			awaitSame(r, "back to nftables", noRules)
			r.Write("/etc/libvirt/network.conf", "firewall_backend = \"iptables\"\n")
			rig.Must(t, r.Daemon.Signal(syscall.SIGHUP))
			awaitRules(r, plain, "by a reload", rig.SavedRules(t, peer.Host))
		})
	}
}

// TestTakingOverWithIptables: with the iptables backend the rules that libvirt
// left are those that are wanted. They become the service's, and go with it.
func TestTakingOverWithIptables(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r, p := libvirtRig(t, variant, firstXML, secondXML)
			first, second := p.Dump(t, "first"), p.Dump(t, "second")
			p.Kill()
			p.Forget("first", "second")
			r.Write("/etc/libvirt/network.conf", "firewall_backend = \"iptables\"\n")
			before := rig.SavedRules(t, r.Host)
			r.StartDaemon()
			for _, xml := range []string{first, second} {
				r.OK(r.AddXML(xml))
				awaitSame(r, "taken over", before)
			}
			r.KillDaemon()
			r.StartDaemon()
			awaitSame(r, "started again", before)
			r.OK(r.Manager("RemoveNetwork", "first", rig.Opts()))
			awaitSame(r, "the first is removed", withoutLines(before, " virbr0 ", " 192.168.122.0/24 ", " 2001:db8:122::/64 "))
			r.OK(r.Manager("RemoveNetwork", "second", rig.Opts()))
			awaitSame(r, "the second is removed", noRules)
		})
	}
}

// libvirts returns the lines of libvirt's chains; firewalld's beside them change.
func libvirts(rules string) string {
	var b strings.Builder
	for line := range strings.Lines(rules) {
		if strings.Contains(line, "LIBVIRT_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestIptablesBesideFirewalld: firewalld flushes iptables when it starts and
// reloads, and forgets its bindings. Rules and bindings come back.
func TestIptablesBesideFirewalld(t *testing.T) {
	t.Parallel()
	for _, firewalld := range []string{"nftables", "iptables"} {
		for _, variant := range rig.IptablesVariants {
			t.Run(firewalld+" and iptables "+variant, func(t *testing.T) {
				t.Parallel()
				r := rig.New(t)
				r.Announce(rig.Uncovered, "state_code=zone-")
				rig.SetIptables(r.Host, variant)
				r.Firewalld.SetZones(rig.AllZones...)
				r.Firewalld.Start(firewalld)
				r.StartDaemon()
				r.Bridge("virbr0", rig.NatNet)
				guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
				r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
				r.SwitchTo("iptables")
				rules := rig.SavedRules(t, r.Host)
				for what, shake := range map[string]func(){
					"reload":          func() { r.Must("firewall-cmd", "--reload") },
					"complete reload": func() { r.Must("firewall-cmd", "--complete-reload") },
					"restart": func() {
						r.Firewalld.Stop(syscall.SIGTERM)
						r.Firewalld.Start(firewalld)
					},
				} {
					shake()
					r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
					awaitRules(r, libvirts, "after a "+what, rules)
					rig.Natted(t, guest, internet, what)
					rig.Guarded(t, guest, internet, what)
				}
			})
		}
	}
}

// TestVariantIsNamed: moves work with both variants, the log names the variant,
// and a change of variant leaves nothing behind in the other.
func TestVariantIsNamed(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	r.Announce(rig.Uncovered)
	for _, variant := range []string{"legacy", "nft", "legacy"} {
		rig.SetIptables(r.Host, variant)
		r.SwitchTo("iptables")
		if got := r.Must("iptables-" + variant + "-save"); !strings.Contains(got, "-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT") {
			t.Errorf("the rules are not in the variant %s:\n%s", variant, got)
		}
		name := map[string]string{"legacy": "legacy", "nft": "nf_tables"}[variant]
		lines := strings.Split(strings.TrimSpace(r.Daemon.Log()), "\n")
		moves := slices.DeleteFunc(lines, func(l string) bool { return !strings.Contains(l, "moved every network") })
		if len(moves) == 0 || !strings.Contains(moves[len(moves)-1], "variant="+name) {
			t.Errorf("the log does not name the variant %s:\n%s", name, r.Daemon.Log())
		}
		rig.Natted(t, guest, internet, variant)
		rig.Guarded(t, guest, internet, variant)
		// The programs change while their rules are in force.
		other := map[string]string{"legacy": "nft", "nft": "legacy"}[variant]
		rig.SetIptables(r.Host, other)
		r.SwitchTo("nftables")
		for _, v := range rig.IptablesVariants {
			for _, program := range []string{"iptables-", "ip6tables-"} {
				if left := r.Must(program + v + "-save"); strings.Contains(left, "LIBVIRT") {
					t.Errorf("from %s to nftables, left in %s%s:\n%s", variant, program, v, left)
				}
			}
		}
		rig.Natted(t, guest, internet, "nftables after "+variant)
	}
}
