package tests

import (
	"context"
	"maps"
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
)

// libvirtPeer is the real libvirt on a host of its own.
type libvirtPeer struct {
	*host.Host
	daemon  *host.Process
	version string
}

// newLibvirtPeer starts libvirtd with an iptables of the given variant.
func newLibvirtPeer(t testing.TB, variant string) *libvirtPeer {
	t.Helper()
	h := hostWithIptables(t, variant)
	h.Bus()
	return libvirtOn(t, h)
}

// libvirtOn starts libvirtd, with no networks, on a host that has a bus.
func libvirtOn(t testing.TB, h *host.Host) *libvirtPeer {
	t.Helper()
	p := &libvirtPeer{Host: h}
	version, err := p.Run("libvirtd", "--version") // libvirtd (libvirt) 9.0.0
	if err != nil {
		t.Fatalf("the real libvirt is needed; tests/setup.sh installs it: %v", err)
	}
	fields := strings.Fields(version)
	p.version = fields[len(fields)-1]
	// polkit is not under test here.
	p.Must("sh", "-c", `rm -f /etc/libvirt/qemu/networks/*.xml /etc/libvirt/qemu/networks/autostart/*
		mkdir -p /var/lib/tftpboot
		printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >> /etc/libvirt/libvirtd.conf`)
	p.start(t)
	return p
}

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

func (p *libvirtPeer) start(t testing.TB) {
	t.Helper()
	p.daemon = p.Start("libvirtd", "/usr/sbin/libvirtd")
	p.Must("sh", "-c", "for i in $(seq 300); do virsh -q -c network:///system net-list >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1")
}

func (p *libvirtPeer) virsh(args ...string) (string, error) {
	return p.Run(append([]string{"virsh", "-q", "-c", "network:///system"}, args...)...)
}

// run starts a network.
func (p *libvirtPeer) run(name, xml string) error {
	const path = "/tmp/network.xml"
	if err := p.WriteFile(path, []byte(xml), 0o644); err != nil {
		return err
	}
	if _, err := p.virsh("net-define", path); err != nil {
		return err
	}
	_, err := p.virsh("net-start", name)
	return err
}

func (p *libvirtPeer) end(t testing.TB, name string) {
	t.Helper()
	for _, verb := range []string{"net-destroy", "net-undefine"} {
		if _, err := p.virsh(verb, name); err != nil {
			t.Fatal(err)
		}
	}
}

var iptablesVariants = []string{"nft", "legacy"}

func hostWithIptables(t testing.TB, variant string) *host.Host {
	t.Helper()
	h := host.New(t)
	setIptables(h, variant)
	return h
}

// setIptables has the programs of a host be of a variant.
func setIptables(h *host.Host, variant string) {
	for _, name := range []string{"iptables", "ip6tables"} {
		h.Must("update-alternatives", "--set", name, "/usr/sbin/"+name+"-"+variant)
	}
}

// savedRules is what both iptables-save print, table by table, without
// comments and counters.
func savedRules(t testing.TB, h *host.Host) string {
	t.Helper()
	var out strings.Builder
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		tables := make(map[string]string)
		table := ""
		for line := range strings.Lines(h.Must(program)) {
			if strings.HasPrefix(line, "*") {
				table = line
			}
			if strings.HasPrefix(line, ":") {
				line, _, _ = strings.Cut(line, " [")
			}
			if !strings.HasPrefix(line, "#") {
				tables[table] += strings.TrimSpace(line) + "\n"
			}
		}
		out.WriteString("# " + program + "\n")
		for _, table := range slices.Sorted(maps.Keys(tables)) {
			out.WriteString(tables[table])
		}
	}
	return out.String()
}

// peerCase is what is to be known of a network of the corpus to compare it
// with libvirt's.
type peerCase struct {
	// edit is pairs of texts that are replaced in the document for libvirt: what
	// this libvirt does not know and what has nothing to do with rules.
	edit []string
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
		differs: without("wlp2s0", "wg0"), why: "D10",
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
	files, err := filepath.Glob("../service/network/testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, variant := range iptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer, ours := newLibvirtPeer(t, variant), hostWithIptables(t, variant)
			for _, file := range files {
				name := strings.TrimSuffix(filepath.Base(file), ".xml")
				t.Run(name, func(t *testing.T) { compareWithLibvirt(t, peer, ours, name) })
			}
		})
	}
}

func compareWithLibvirt(t *testing.T, peer *libvirtPeer, ours *host.Host, name string) {
	c, doc := peerCases[name], corpus(t, name+".xml")
	n, err := network.FromXML([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer(c.edit...).Replace(doc)
	if len(c.edit) > 0 && edited == doc {
		t.Error("the edit for libvirt found nothing to replace")
	}
	got := rulesWith(t, ours, n)
	err = peer.run(n.Name, edited)
	if c.refused != "" && (c.before == "" || olderVersion(peer.version, c.before)) {
		if err == nil || !strings.Contains(err.Error(), c.refused) {
			t.Errorf("libvirt: %v, want %q (%s)", err, c.refused, c.why)
		}
		_, _ = peer.virsh("net-undefine", n.Name)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want := savedRules(t, peer.Host)
	peer.end(t, n.Name)
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

// rulesWith is a host's rules with one network, which is removed again.
func rulesWith(t *testing.T, h *host.Host, n network.Network) string {
	t.Helper()
	b, err := iptables.Open(iptables.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := h.Inside(func() error {
		return b.Apply(ctx, backend.Change{Set: []backend.Member{{Network: n, Iface: n.Bridge}}})
	}); err != nil {
		t.Fatal(err)
	}
	rules := ""
	if len(iptables.Compile(n)) > 0 {
		rules = savedRules(t, h)
	}
	if err := h.Inside(func() error { return b.RemoveAll(ctx) }); err != nil {
		t.Fatal(err)
	}
	if left := savedRules(t, h); strings.Contains(left, "LIBVIRT") || strings.Contains(left, "VIRTFW") {
		t.Error("left behind:\n", left)
	}
	return rules
}

// Networks that come and go one after the other leave the same order as with
// libvirt.
func TestNetworksStandInLibvirtsOrder(t *testing.T) {
	for _, variant := range iptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer, ours := newLibvirtPeer(t, variant), hostWithIptables(t, variant)
			b, err := iptables.Open(iptables.Config{})
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct{ add, remove string }{
				{add: "nat-default"}, {add: "route-ipv6"}, {add: "nat-many-ips"}, {remove: "route-ipv6"},
				{add: "isolated"}, {remove: "nat-default"}, {add: "nat-default"},
			} {
				n, err := network.FromXML([]byte(corpus(t, step.add+step.remove+".xml")))
				if err != nil {
					t.Fatal(err)
				}
				change := backend.Change{Set: []backend.Member{{Network: n, Iface: n.Bridge}}}
				if step.add != "" {
					err = peer.run(n.Name, corpus(t, step.add+".xml"))
				} else {
					change = backend.Change{Remove: []string{n.Name}}
					peer.end(t, n.Name)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := ours.Inside(func() error { return b.Apply(context.Background(), change) }); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(savedRules(t, peer.Host), savedRules(t, ours)); diff != "" {
					t.Fatalf("after %+v (-libvirt +ours):\n%s", step, diff)
				}
			}
		})
	}
}

// A network that libvirt has started is taken over as it is, and goes without
// a trace; what libvirt holds for another network stays.
func TestTakingOverFromLibvirt(t *testing.T) {
	for _, variant := range iptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			peer := newLibvirtPeer(t, variant)
			n, err := network.FromXML([]byte(corpus(t, "nat-many-ips.xml")))
			if err != nil {
				t.Fatal(err)
			}
			if err := peer.run("route-ipv6", corpus(t, "route-ipv6.xml")); err != nil {
				t.Fatal(err)
			}
			without := savedRules(t, peer.Host)
			if err := peer.run(n.Name, corpus(t, "nat-many-ips.xml")); err != nil {
				t.Fatal(err)
			}
			with := savedRules(t, peer.Host)
			if err := peer.daemon.Stop(); err != nil {
				t.Fatal(err)
			}
			b, err := iptables.Open(iptables.Config{})
			if err != nil {
				t.Fatal(err)
			}
			var damaged []string
			if err := peer.Inside(func() (err error) {
				damaged, err = b.Sync(context.Background(), []backend.Member{{Network: n, Iface: n.Bridge}})
				return err
			}); err != nil || len(damaged) > 0 {
				t.Errorf("damaged %v, error %v", damaged, err)
			}
			if diff := cmp.Diff(with, savedRules(t, peer.Host)); diff != "" {
				t.Error("taken over (-libvirt +ours):\n", diff)
			}
			if err := peer.Inside(func() error { return b.Apply(context.Background(), backend.Change{Remove: []string{n.Name}}) }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(without, savedRules(t, peer.Host)); diff != "" {
				t.Error("removed (-libvirt's other network +left):\n", diff)
			}
		})
	}
}
