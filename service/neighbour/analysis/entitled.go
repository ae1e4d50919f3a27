package analysis

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Flow is one kind of traffic that a network is entitled to.
type Flow struct {
	Name    string // for people: "guests to the outside"
	Packets []Packet
}

// Uplinks are a host's interfaces to the outside, of each family.
type Uplinks struct{ IPv4, IPv6 []string }

func (u Uplinks) of(ipv6 bool) []string {
	if ipv6 {
		return u.IPv6
	}
	return u.IPv4
}

// Entitled returns what a network is entitled to, whose bridge is called iface. Its
// flows are few: what holds for one guest without rules of its own holds for all.
func Entitled(n network.Network, iface string, uplinks Uplinks) []Flow {
	e := &entitled{bridge: iface, byName: make(map[string]int)}
	if n.Mode == network.ModeOpen {
		return nil // what its guests may do is the host's other rules' business
	}
	for _, p := range n.Subnets() {
		guest := Place{Kind: Guest, Net: p}
		if n.Mode != network.ModeIsolated && !p.Addr().IsLinkLocalUnicast() {
			e.outside(guest, uplinks)
		}
	}
	for _, p := range n.Addresses {
		e.services(n, p)
	}
	return e.flows
}

// entitled gathers flows.
type entitled struct {
	bridge string
	flows  []Flow
	byName map[string]int
}

func (e *entitled) add(name string, p Packet) {
	if p.HopLimit == 0 {
		p.HopLimit = 64
	}
	i, ok := e.byName[name]
	if !ok {
		i = len(e.flows)
		e.byName[name] = i
		e.flows = append(e.flows, Flow{Name: name})
	}
	e.flows[i].Packets = append(e.flows[i].Packets, p)
}

// outside adds what a guest sends to the outside, and the replies.
func (e *entitled) outside(guest Place, uplinks Uplinks) {
	ipv6 := !guest.Net.Addr().Is4()
	for _, uplink := range uplinks.of(ipv6) {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			there := Packet{Way: Forward, In: e.bridge, Out: uplink, Src: guest, Dst: Place{Kind: Outside}, IPv6: ipv6, Proto: proto}
			e.add("guests to the outside", there)
			e.add("replies from the outside to guests", Packet{
				Way: Forward, In: uplink, Out: e.bridge, Src: there.Dst, Dst: guest, IPv6: ipv6, Proto: proto, Reply: true,
			})
		}
	}
}

// services adds what guests of a subnet ask the host, which has this address in it.
func (e *entitled) services(n network.Network, own netip.Prefix) {
	const dns, tftp = 53, 69
	addr := own.Addr()
	ipv6 := !addr.Is4()
	ask := Packet{
		Way: Input, In: e.bridge, IPv6: ipv6, Src: Place{Kind: Guest, Net: own.Masked()},
		Dst: Place{Kind: Host, Net: netip.PrefixFrom(addr, addr.BitLen())}, Proto: unix.IPPROTO_UDP,
	}
	if ipv6 {
		e.discovery(ask)
	}
	if n.DHCP {
		e.dhcp(ask)
	}
	if n.DNS {
		ask.DstPort = dns
		e.add("guests' DNS to the host", ask)
		ask.Proto = unix.IPPROTO_TCP
		e.add("guests' DNS to the host", ask)
		ask.Proto = unix.IPPROTO_UDP
	}
	if n.TFTP {
		ask.DstPort = tftp
		e.add("guests' TFTP to the host", ask)
	}
}

// dhcp adds what a guest without an address sends.
func (e *entitled) dhcp(ask Packet) {
	if ask.IPv6 {
		ask.Src, ask.Dst = linkLocal(Guest), Place{Kind: Multicast, Net: netip.MustParsePrefix("ff02::1:2/128")}
		ask.SrcPort, ask.DstPort = 546, 547
		e.add("guests' DHCPv6 to the host", ask)
		return
	}
	ask.Src, ask.Dst = Place{Kind: Nowhere, Net: netip.MustParsePrefix("0.0.0.0/32")}, Place{Kind: Broadcast, Net: netip.MustParsePrefix("255.255.255.255/32")}
	ask.SrcPort, ask.DstPort = 68, 67
	e.add("guests' DHCP to the host", ask)
}

// discovery adds neighbour discovery, without which there is no IPv6 at all.
func (e *entitled) discovery(ask Packet) {
	const solicitation = 135
	ask.Src, ask.Dst = linkLocal(Guest), Place{Kind: Multicast, Net: netip.MustParsePrefix("ff02::1:ff00:1/128")}
	ask.Proto, ask.ICMPType, ask.HopLimit, ask.Untracked = unix.IPPROTO_ICMPV6, solicitation, 255, true
	e.add("guests' neighbour discovery", ask)
}

func linkLocal(k Kind) Place { return Place{Kind: k, Net: netip.MustParsePrefix("fe80::1/128")} }

// Cut is a flow that is stopped, one of its packets, and what stops that.
type Cut struct {
	Flow   string
	Packet Packet
	Answer
}

// Cuts returns the flows that tables certainly stop, once for each rule or policy and
// transport protocol.
func Cuts(tables []Table, flows []Flow) (cuts []Cut) {
	for _, f := range flows {
		type what struct {
			At
			proto uint8
		}
		seen := make(map[what]bool)
		for _, p := range f.Packets {
			a := Decide(tables, p)
			if (a.Verdict == Dropped || a.Verdict == Rejected) && !seen[what{a.At, p.Proto}] {
				seen[what{a.At, p.Proto}] = true
				cuts = append(cuts, Cut{f.Name, p, a})
			}
		}
	}
	return cuts
}
