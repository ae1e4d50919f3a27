package libvirt

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// olderVersion compares versions number by number.
func olderVersion(a, b string) bool {
	numbers := func(version string) (out []int) {
		for part := range strings.SplitSeq(version, ".") {
			n, _ := strconv.Atoi(part)
			out = append(out, n)
		}
		return out
	}
	return slices.Compare(numbers(a), numbers(b)) < 0
}

// peerCase is what is to be known of a network of the corpus to compare it
// with libvirt's.
type peerCase struct {
	// edit is pairs of texts that are replaced in the document for libvirt: what
	// this libvirt does not know and what has nothing to do with rules.
	edit []string
	// refusedUnedited is part of the error for the document before the edit.
	refusedUnedited string
	// refused is part of the error where libvirt does not start it, or did not
	// before a version.
	refused, before string
	// differs is a deliberate difference: it takes it out of our rules.
	differs func(rules string) string
	why     string
}

const dhcpAndTFTP = `<ip address='192.168.84.1' netmask='255.255.255.0'><tftp root='/var/lib/tftpboot'/>` +
	`<dhcp><range start='192.168.84.2' end='192.168.84.9'/></dhcp></ip>`

var peerCases = map[string]peerCase{
	"nat-bandwidth-and-more": {edit: []string{"<bandwidth>", "<!--", "</bandwidth>", "-->", "<vlan trunk='yes'>", "<!--", "</vlan>", "-->"}},
	"nat-zone":               {edit: []string{" zone='trusted'", ""}},
	"route-zone":             {edit: []string{" zone='dmz'", ""}},
	"open-zone":              {edit: []string{" zone='internal'", ""}},
	"open-without-ip":        {refused: "no IP address provided", before: "10.8.0", why: "libvirt can since"},
	"nat-single-port":        {refused: "Invalid port range", why: "D5"},
	"nat-static-routes":      {differs: without("10.40.0.0/16", "10.41.0.0/16", "fd00:4000::/48"), why: "D3"},
	"nat-route-around":       {differs: without("10.0.0.0/16"), why: "D3"},
	"route-nested":           {differs: without("10.0.128.0/17"), why: "D3"},
	"nat-interface-list": {
		edit:    []string{"<interface dev='wlp2s0'/>", "", "<interface dev='wg0'/>", ""},
		differs: without("wlp2s0", "wg0"), why: "D10", refusedUnedited: "only one is supported",
	},
	"own-ipv6-pool": {differs: masquerade6, why: "libvirt has no pool for IPv6"},
	"own-open-as-nat": {
		edit: []string{"<forward mode='open'/>", "<forward mode='nat' dev='enp1s0'><nat ipv6='yes'>" +
			"<address start='198.51.100.10' end='198.51.100.20'/><port start='2000' end='60000'/></nat></forward>"},
		differs: func(rules string) string { return without("wlp2s0")(masquerade6(rules)) }, why: "D10, and no pool for IPv6",
	},
	"own-open-as-isolated": {edit: []string{"<forward mode='open'/>", ""}},
	"own-open-as-route": {
		// D3 is that the subnet behind a guest passes like one of the host's.
		edit: []string{"<forward mode='open'/>", "<forward mode='route'/>", "\n</network>", "<ip address='10.81.0.1' prefix='16'/></network>"},
	},
	"own-routes-and-services": {
		edit:    []string{"<ip address='192.168.84.1' netmask='255.255.255.0'/>", dhcpAndTFTP},
		differs: without("10.84.0.0/16", "fd00:8400::/48"), why: "D3",
	},
}

// without takes lines out.
func without(parts ...string) func(string) string {
	return func(rules string) string {
		var kept strings.Builder
		for line := range strings.Lines(rules) {
			if !slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(line, part) }) {
				kept.WriteString(line)
			}
		}
		return kept.String()
	}
}

var pool6 = regexp.MustCompile(`SNAT --to-source \[?2001:db8:ffff::10-2001:db8:ffff::20(]:)?`)

func masquerade6(rules string) string {
	return pool6.ReplaceAllStringFunc(rules, func(s string) string {
		if strings.HasSuffix(s, ":") {
			return "MASQUERADE --to-ports "
		}
		return "MASQUERADE"
	})
}

func TestRulesAreLibvirts(t *testing.T) {
	files, err := filepath.Glob(rig.Source("service/network/testdata/*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer, ours := rig.NewLibvirt(t, variant), rig.HostWithIptables(t, variant)
			for _, file := range files {
				name := strings.TrimSuffix(filepath.Base(file), ".xml")
				t.Run(name, func(t *testing.T) { compareWithLibvirt(t, peer, ours, name) })
			}
		})
	}
}

func compareWithLibvirt(t *testing.T, peer *rig.Libvirt, ours *host.Host, name string) {
	c, doc := peerCases[name], rig.Corpus(t, name+".xml")
	n, err := network.FromXML([]byte(doc))
	rig.Must(t, err)
	edited := strings.NewReplacer(c.edit...).Replace(doc)
	if len(c.edit) > 0 && edited == doc {
		t.Error("the edit for libvirt found nothing to replace")
	}
	if c.refusedUnedited != "" {
		if err := peer.CreateNetwork(doc); err == nil || !strings.Contains(err.Error(), c.refusedUnedited) {
			t.Errorf("libvirt, unedited: %v, want %q (%s)", err, c.refusedUnedited, c.why)
		}
	}
	got := rulesWith(t, ours, n)
	err = peer.CreateNetwork(edited)
	if c.refused != "" && (c.before == "" || olderVersion(peer.Version, c.before)) {
		if err == nil || !strings.Contains(err.Error(), c.refused) {
			t.Errorf("libvirt: %v, want %q (%s)", err, c.refused, c.why)
		}
		return
	}
	rig.Must(t, err)
	want := rig.SavedRules(t, peer.Host)
	peer.EndNetwork(t, n.Name)
	if n.Mode == network.ModeOpen {
		// libvirt never removes its chains.
		if strings.Contains(want, "-A LIBVIRT") || got != "" {
			t.Errorf("rules for an open network:\nlibvirt:\n%s\nours:\n%s", want, got)
		}
		return
	}
	if c.differs != nil {
		less := c.differs(got)
		if less == got {
			t.Errorf("the difference (%s) is not there", c.why)
		}
		got = less
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("rules (-libvirt +ours):\n", diff)
	}
}

// set returns the members of a change that sets one network.
func set(n network.Network) []backend.Member { return []backend.Member{{Network: n, Iface: n.Bridge}} }

// rulesWith returns a host's rules with one network, which is removed again.
func rulesWith(t *testing.T, h *host.Host, n network.Network) string {
	t.Helper()
	b, err := iptables.Open(iptables.Config{})
	rig.Must(t, err)
	ctx := context.Background()
	rig.Must(t, h.Inside(func() error { return b.Apply(ctx, backend.Change{Set: set(n)}) }))
	rules := ""
	if len(iptables.Compile(n)) > 0 {
		rules = rig.SavedRules(t, h)
	}
	rig.Must(t, h.Inside(func() error { return b.RemoveAll(ctx) }))
	if left := rig.SavedRules(t, h); strings.Contains(left, "LIBVIRT") || strings.Contains(left, "VIRTFW") {
		t.Error("left behind:\n", left)
	}
	return rules
}

// Networks that come and go one after the other leave the same order as with
// libvirt.
func TestNetworksStandInLibvirtsOrder(t *testing.T) {
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer, ours := rig.NewLibvirt(t, variant), rig.HostWithIptables(t, variant)
			b, err := iptables.Open(iptables.Config{})
			rig.Must(t, err)
			for _, step := range []struct{ add, remove string }{
				{add: "nat-default"}, {add: "route-ipv6"}, {add: "nat-many-ips"}, {remove: "route-ipv6"},
				{add: "isolated"}, {remove: "nat-default"}, {add: "nat-default"},
			} {
				n, err := network.FromXML([]byte(rig.Corpus(t, step.add+step.remove+".xml")))
				rig.Must(t, err)
				change := backend.Change{Set: set(n)}
				if step.add != "" {
					err = peer.CreateNetwork(rig.Corpus(t, step.add+".xml"))
				} else {
					change = backend.Change{Remove: []string{n.Name}}
					peer.EndNetwork(t, n.Name)
				}
				rig.Must(t, err)
				rig.Must(t, ours.Inside(func() error { return b.Apply(context.Background(), change) }))
				if diff := cmp.Diff(rig.SavedRules(t, peer.Host), rig.SavedRules(t, ours)); diff != "" {
					t.Fatalf("after %+v (-libvirt +ours):\n%s", step, diff)
				}
			}
		})
	}
}

// A network that libvirt has started is taken over as it is, and goes without
// a trace; what libvirt holds for another network stays.
func TestTakingOverFromLibvirt(t *testing.T) {
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer := rig.NewLibvirt(t, variant)
			n, err := network.FromXML([]byte(rig.Corpus(t, "nat-many-ips.xml")))
			rig.Must(t, err)
			rig.Must(t, peer.StartNetwork("route-ipv6", rig.Corpus(t, "route-ipv6.xml")))
			without := rig.SavedRules(t, peer.Host)
			rig.Must(t, peer.StartNetwork(n.Name, rig.Corpus(t, "nat-many-ips.xml")))
			with := rig.SavedRules(t, peer.Host)
			rig.Must(t, peer.Daemon.Stop())
			b, err := iptables.Open(iptables.Config{})
			rig.Must(t, err)
			var damaged []string
			if err := peer.Inside(func() (err error) {
				damaged, err = b.Sync(context.Background(), set(n))
				return err
			}); err != nil || len(damaged) > 0 {
				t.Errorf("damaged %v, error %v", damaged, err)
			}
			if diff := cmp.Diff(with, rig.SavedRules(t, peer.Host)); diff != "" {
				t.Error("taken over (-libvirt +ours):\n", diff)
			}
			rig.Must(t, peer.Inside(func() error { return b.Apply(context.Background(), backend.Change{Remove: []string{n.Name}}) }))
			if diff := cmp.Diff(without, rig.SavedRules(t, peer.Host)); diff != "" {
				t.Error("removed (-libvirt's other network +left):\n", diff)
			}
		})
	}
}
