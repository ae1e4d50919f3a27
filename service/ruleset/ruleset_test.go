package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

var update = flag.Bool("update", false, "write the goldens and docs/rules.md anew")

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// scenario is one golden: testdata/<file>.nft, and where about is set a section
// of docs/rules.md.
type scenario struct {
	file, title, about string
	net                network.Network
	index              int
}

func scenarios() []scenario {
	base := network.Network{Name: "default", Bridge: "virbr0", Mode: network.ModeNAT, Addresses: prefixes("192.168.122.1/24"), DHCP: true, DNS: true}
	with := func(change func(*network.Network)) network.Network {
		n := base
		change(&n)
		return n
	}
	v6 := prefixes("192.168.122.1/24", "2001:db8:122::1/64")
	return []scenario{
		{"nat", "nat", "Guests reach the outside under the host's address; only replies come back. " +
			"TCP and UDP leave from ports 1024 to 65535, so that a server that trusts privileged ports does not trust a guest. " +
			"What conntrack calls invalid, or was told not to follow, cannot be translated: other networks' own rules decide on it as on everything, " +
			"and it does not leave for the outside, where libvirt lets it go with the guest's own address.", base, 7},
		{"nat-waiting", "nat, bridge not there yet", "The same rules hold by the bridge's name alone, so that there is no instant without them when it appears.", base, 0},
		{"nat-device", "nat through chosen devices", "Each forward device is matched by name: one that is absent today works when it appears. " +
			"Guests that want out another way are refused.", with(func(n *network.Network) { n.Devices = []string{"eth0", "wlan0"} }), 7},
		{"nat-pool", "nat with an address pool and ports", "Translated packets get one of the pool's addresses. Ports apply to TCP and UDP; other protocols have none.",
			with(func(n *network.Network) {
				n.NATAddresses = network.AddrRange{First: netip.MustParseAddr("203.0.113.10"), Last: netip.MustParseAddr("203.0.113.20")}
				n.NATPorts = network.PortRange{First: 5000, Last: 6000}
			}), 7},
		{"nat-port", "", "", with(func(n *network.Network) { n.NATPorts = network.PortRange{First: 5000, Last: 5000} }), 7},
		{"nat-ipv6-routed", "nat with IPv6 that is not translated", "As in libvirt, IPv6 of a nat network without `<nat ipv6='yes'>` is routed: anyone may reach the guests.",
			with(func(n *network.Network) { n.Addresses = v6 }), 7},
		{"nat-ipv6", "nat for both families", "With `<nat ipv6='yes'>` IPv6 is translated like IPv4.", with(func(n *network.Network) { n.Addresses, n.NATIPv6 = v6, true }), 7},
		{"nat-ipv6-pool", "", "", with(func(n *network.Network) {
			n.Addresses, n.NATIPv6 = v6, true
			n.NATAddresses6 = network.AddrRange{First: netip.MustParseAddr("2001:db8::10"), Last: netip.MustParseAddr("2001:db8::20")}
		}), 7},
		{"nat-routes", "nat with a subnet behind a guest", "The subnet of a `<route>` passes like the network's own, and sees the guests' real addresses.",
			with(func(n *network.Network) { n.Routes = prefixes("10.9.0.0/16") }), 7},
		{"route", "route", "Guests and the outside reach each other under their own addresses, in both directions.",
			with(func(n *network.Network) { n.Mode, n.Addresses = network.ModeRoute, v6 }), 7},
		{"route-device", "", "", with(func(n *network.Network) {
			n.Mode, n.Addresses, n.Devices = network.ModeRoute, v6, []string{"eth0"}
		}), 7},
		{"isolated", "isolated", "Guests reach each other and the host. Nothing is forwarded, in or out, whatever another network would let in.",
			with(func(n *network.Network) { n.Mode = network.ModeIsolated }), 7},
		{"nat-nested", "", "", with(func(n *network.Network) {
			n.Addresses = prefixes("10.0.0.1/16", "10.0.5.1/24", "fd00:5::1/48", "fd00:5:0:1::1/64")
			n.Routes = prefixes("10.0.128.0/17")
		}), 7},
		{"nat-three", "", "", with(func(n *network.Network) { n.Addresses = prefixes("10.0.1.1/24", "10.0.2.1/24", "10.0.3.1/24") }), 7},
		{"isolated-bare", "", "", with(func(n *network.Network) { n.Mode, n.Addresses, n.IPv6Guests = network.ModeIsolated, nil, true }), 7},
		{"long-name", "", "", with(func(n *network.Network) { n.Name = strings.Repeat("é", 64) }), 7},
	}
}

func TestCompileGoldens(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.file, func(t *testing.T) {
			part, ok := Compile(s.net, s.index)
			if !ok {
				t.Fatal("no rules")
			}
			golden(t, filepath.Join("testdata", s.file+".nft"), Text(SetsOf(Base(Interface{}), part), part))
		})
	}
	golden(t, filepath.Join("testdata", "skeleton.nft"), Text(Base(Interface{Index: 2, Name: "eth0"})))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; look at it, then renew it with -update (-want +got):\n%s", file, diff)
	}
}

func TestOpenHasNoRules(t *testing.T) {
	n := scenarios()[0].net
	n.Mode = network.ModeOpen
	if part, ok := Compile(n, 7); ok || len(part.Chains)+len(part.Elements)+len(part.Counters) != 0 {
		t.Errorf("open network compiled to %+v", part)
	}
}

func TestNamesAreDistinctAndLegal(t *testing.T) {
	seen := map[string]string{}
	long := strings.Repeat("a", 128)
	for _, name := range []string{"a", "A", "a_from", "a-from", "a_5ffrom", "7", "é", "€", "log", long, long[:127], long[:127] + "b", strings.Repeat("-", 128)} {
		n := NamesOf(name)
		for _, got := range []string{n.From, n.To, n.NAT, n.RejectedFrom, n.RejectedTo} {
			if other, dup := seen[got]; dup {
				t.Errorf("%q and %q share the name %s", name, other, got)
			}
			seen[got] = name
			if len(got) > 128 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
				t.Errorf("%q gives the chain %q", name, got)
			}
		}
	}
}

func TestCommentsAreCutAtCharacters(t *testing.T) {
	for n := 100; n < 140; n++ {
		if got := comment("%s", strings.Repeat("x", n)+"€€€€€€€€"); len(got) > maxComment || !utf8.ValidString(got) {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
	}
}

// TestEveryPacketMeetsARefusal: each filter chain of a network's own, and those of a
// side that all share, end in a rule that lets nothing of a network's pass.
func TestEveryPacketMeetsARefusal(t *testing.T) {
	for _, s := range scenarios() {
		part, _ := Compile(s.net, s.index)
		for _, c := range part.Chains {
			if c.Name == NamesOf(s.net.Name).NAT {
				continue
			}
			last := c.Rules[len(c.Rules)-1]
			if len(last.Matches) != 0 {
				t.Errorf("%s: chain %s can run off its end", s.file, c.Name)
			}
			if last.Action != (Goto{Chain: ChainRefuse}) && last.Action != (Drop{}) {
				t.Errorf("%s: chain %s ends in %s", s.file, c.Name, last)
			}
		}
		expectRefusals(t, s.file, part)
	}
}

// expectRefusals: a network without chains of its own is refused all else by elements.
func expectRefusals(t *testing.T, file string, part Part) {
	t.Helper()
	for _, guest := range part.Elements {
		half, isGuest := strings.CutPrefix(guest.Set, setGuests)
		if !isGuest {
			continue
		}
		for _, sets := range [][2]string{{mapFrom, setRefusedFrom}, {mapTo, setRefusedTo}} {
			if !slices.ContainsFunc(part.Elements, func(e Element) bool {
				return (e.Set == sets[0]+half || e.Set == sets[1]+half) && e.Name == guest.Name
			}) {
				t.Errorf("%s: %s of %s is in neither of %v", file, guest.Set, guest.Name, sets)
			}
		}
	}
}
