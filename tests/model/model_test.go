package model

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// town is a network of each kind, and what the packets of the tests come from.
func town() *Host {
	network := func(name string, mode Mode, number string, more func(*Network)) Network {
		n := Network{Name: name, Bridge: "br-" + name, Mode: mode, Addresses: []netip.Prefix{
			netip.MustParsePrefix("10." + number + ".0.1/24"), netip.MustParsePrefix("2001:db8:" + number + "::1/64"),
		}}
		if more != nil {
			more(&n)
		}
		return n
	}
	h := NewHost([]Network{
		network("nat", NAT, "1", func(n *Network) {
			n.Routes = []Behind{{netip.MustParsePrefix("10.91.0.0/16"), netip.MustParseAddr("10.1.0.2")}}
		}),
		network("nat-wan", NAT, "2", func(n *Network) { n.Devices, n.NAT6 = []string{"wan0", "lan0"}, true }),
		network("route", Route, "3", nil),
		network("route-wan", Route, "4", func(n *Network) { n.Devices = []string{"wan0"} }),
		network("isolated", Isolated, "5", nil),
		network("open", Open, "6", nil),
		network("four", NAT, "7", func(n *Network) { n.Addresses = n.Addresses[:1] }),
		network("pool", NAT, "8", func(n *Network) {
			n.Pool = Range{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.3")}
			n.Ports = [2]uint16{5000, 5000}
		}),
	}, NFTables)
	h.BridgeNetfilter = true
	return h
}

// homes are the devices behind which addresses of the tests are.
var homes = map[string]string{
	"10.1.": "br-nat", "2001:db8:1:": "br-nat", "10.91.": "br-nat", "10.2.": "br-nat-wan", "2001:db8:2:": "br-nat-wan",
	"10.3.": "br-route", "2001:db8:3:": "br-route", "10.4.": "br-route-wan", "10.5.": "br-isolated", "10.6.": "br-open",
	"10.7.": "br-four", "2001:db8:7:": "br-four", "10.8.": "br-pool", "203.": "wan0", "2001:db8:ffff:": "wan0", "198.": "lan0",
}

func home(address string) string {
	for start, device := range homes {
		if strings.HasPrefix(address, start) {
			return device
		}
	}
	return ""
}

// packet reads one: "TCP 10.1.0.2 -> 203.0.113.1 reply"; "10.1.0.2 on wan0" comes
// from another device than its source is at home; ", bridged" stays on its bridge.
func packet(text string) Packet {
	way, state, _ := strings.Cut(text, ", ")
	proto, way, _ := strings.Cut(way, " ")
	from, to, _ := strings.Cut(way, " -> ")
	from, in, forged := strings.Cut(from, " on ")
	if !forged {
		in = home(from)
	}
	out, bridged := home(to), state == "bridged"
	if bridged {
		out = in
	}
	if state == "" || bridged {
		state = string(New)
	}
	return Packet{
		In: in, Out: out, Bridged: bridged, From: netip.MustParseAddr(from), To: netip.MustParseAddr(to),
		Proto: Proto(proto), State: State(state),
	}
}

// TestLibvirtsVerdicts holds the table of what follows from the order of libvirt's
// chains, and each difference beside it.
func TestLibvirtsVerdicts(t *testing.T) {
	for _, c := range []struct{ packet, libvirt, differs, ours string }{
		{"TCP 10.1.0.2 -> 203.0.113.1", "passes, translated by nat to an address of wan0 ports 1024-65535", "", ""},
		{"ICMP 10.1.0.2 -> 203.0.113.1", "passes, translated by nat to an address of wan0", "", ""},
		{"UDP 10.8.0.2 -> 203.0.113.1", "passes, translated by pool to 192.0.2.1-192.0.2.3 ports 5000-5000", "", ""},
		{"UDP 203.0.113.1 -> 10.1.0.2", "refused, port unreachable", "", ""},
		{"UDP 203.0.113.1 -> 10.1.0.2, reply", "passes", "", ""},
		{"TCP 203.0.113.1 -> 10.1.0.2", "refused, port unreachable", "D4", "refused, TCP reset"},
		{"TCP 2001:db8:1::2 -> 2001:db8:ffff::1", "passes", "", ""},
		{"TCP 2001:db8:ffff::1 -> 2001:db8:1::2", "passes", "", ""},
		{"TCP 2001:db8:2::2 -> 2001:db8:ffff::1", "passes, translated by nat-wan to an address of wan0 ports 1024-65535", "", ""},
		{"UDP 10.1.0.2 -> 10.8.0.2", "refused, port unreachable", "", ""},
		{"UDP 10.1.0.2 -> 10.3.0.2", "passes, translated by nat to an address of br-route ports 1024-65535", "", ""},
		{"UDP 10.3.0.2 -> 10.1.0.2", "refused, port unreachable", "", ""},
		{"UDP 10.3.0.2 -> 10.4.0.2", "refused, port unreachable", "", ""},
		{"UDP 203.0.113.1 -> 10.4.0.2", "passes", "", ""},
		{"UDP 198.51.100.1 -> 10.4.0.2", "refused, port unreachable", "", ""},
		{"UDP 10.3.0.2 -> 10.5.0.2", "refused, port unreachable", "", ""},
		{"UDP 10.6.0.2 -> 203.0.113.1", "passes", "", ""},
		{"UDP 10.1.0.2 -> 10.1.0.3", "passes", "", ""},
		{"UDP 10.91.0.2 -> 10.1.0.3", "passes", "", ""},
		{"UDP 10.1.0.2 -> 10.1.0.3, bridged", "passes", "", ""},

		{"UDP 10.5.0.2 -> 10.3.0.2", "passes", "D1", "refused, port unreachable"},
		{"UDP 10.4.0.2 -> 10.3.0.2", "passes", "D1", "refused, port unreachable"},
		{"UDP 10.91.0.2 -> 203.0.113.1", "refused, port unreachable", "D3", "passes, translated by nat to an address of wan0 ports 1024-65535"},
		{"UDP 10.1.0.2 -> 10.91.0.2", "passes, translated by nat to an address of br-nat ports 1024-65535", "D3", "passes"},
		{"UDP 10.9.0.9 on br-nat -> 203.0.113.1", "refused, port unreachable", "D4", "dropped"},
		{"UDP 10.9.0.9 on br-isolated -> 10.3.0.2", "passes", "D4", "dropped"},
		{"UDP 10.1.0.2 on lan0 -> 203.0.113.1", "passes, translated by nat to an address of wan0 ports 1024-65535", "D8", "passes"},
		{"UDP 10.1.0.1 on  -> 203.0.113.1", "passes, translated by nat to an address of wan0 ports 1024-65535", "D8", "passes"},
		{"UDP 2001:db8:7::2 -> 2001:db8:ffff::1", "passes", "D9", "refused, port unreachable"},
		{"UDP 2001:db8:ffff::1 -> 2001:db8:7::2", "passes", "D9", "refused, port unreachable"},
		{"UDP 10.2.0.2 -> 198.51.100.1", "refused, port unreachable", "D10", "passes, translated by nat-wan to an address of lan0 ports 1024-65535"},
		{"TCP 10.1.0.2 -> 203.0.113.1, invalid", "passes", "D11", "dropped"},
		{"TCP 10.1.0.2 -> 10.3.0.2, invalid", "passes", "", ""},
		{"UDP 10.1.0.2 -> 203.0.113.1, bridged", "passes, translated by nat to an address of br-nat ports 1024-65535", "D13", "passes"},
	} {
		v, why := town().Verdict(packet(c.packet))
		if c.ours == "" {
			c.ours = c.libvirt
		}
		differs := slices.ContainsFunc(why[1:], func(step string) bool { return strings.HasPrefix(step, c.differs+":") })
		if why[0] != "libvirt: "+c.libvirt || v.String() != c.ours || (c.differs != "" && !differs) || (c.differs == "" && len(why) > 1) {
			t.Errorf("%s: got %q, want %q with libvirt, then %q by %q", c.packet, why, c.libvirt, c.ours, c.differs)
		}
	}
}

// TestDifferencesAreDocumented: each difference has its row in the documentation,
// for the backends that have it.
func TestDifferencesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		number, _, _ := strings.Cut(d.name, ":")
		backend := "both"
		if d.nftablesOnly {
			backend = "nft"
		}
		if row := fmt.Sprintf("\n| %s | %s |", number, backend); !strings.Contains(string(page), row) {
			t.Errorf("docs/differences.md has no row%s for %q", row, d.name)
		}
	}
}

// TestGeneratedNetworks: the same seed makes the same networks, all kinds are
// among them, and no two overlap.
func TestGeneratedNetworks(t *testing.T) {
	first, second := Generate(7, 200, "wan0", "lan0"), Generate(7, 200, "wan0", "lan0")
	modes := map[Mode]int{}
	var taken []netip.Prefix
	for i := range first {
		n := &first[i]
		if n.XML() != second[i].XML() {
			t.Fatalf("one seed makes\n%s\nand\n%s", n.XML(), second[i].XML())
		}
		modes[n.Mode]++
		for _, ipv6 := range []bool{false, true} {
			for _, subnet := range slices.Concat(n.own(ipv6), n.behind(ipv6)) {
				if slices.ContainsFunc(taken, subnet.Overlaps) {
					t.Errorf("%s of %s overlaps another", subnet, n.Name)
				}
				taken = append(taken, subnet)
			}
			for _, guest := range n.Guest(0, ipv6) {
				if !anyContains(n.own(ipv6), guest) || slices.ContainsFunc(n.Addresses, func(a netip.Prefix) bool { return a.Addr() == guest }) {
					t.Errorf("a guest of %s has the address %s", n.Name, guest)
				}
			}
		}
	}
	if len(modes) != 4 {
		t.Errorf("the networks' modes are %v", modes)
	}
}
