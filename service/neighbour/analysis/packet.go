package analysis

import (
	"net/netip"
	"strings"
)

// Packet stands for all packets of one kind: those that a guest without rules of its
// own sends to some host of the outside, say.
type Packet struct {
	// Way is where the packet goes: Forward, Input or Output.
	Way      Hook
	In, Out  string // interfaces; "" for the host itself
	Src, Dst Place
	IPv6     bool
	Proto    uint8 // IPPROTO_*
	// SrcPort and DstPort are 0 for ports that no rule names.
	SrcPort, DstPort uint16
	ICMPType         uint8
	HopLimit         uint8
	Reply            bool // of an established connection, else new
	Untracked        bool // conntrack leaves it alone, as it does neighbour discovery

	mark        uint32 // that rules have given it
	markUnknown bool
}

// Place is where an end of a packet is.
type Place struct {
	Kind Kind
	// Net is a guest's subnet, or an address of the host with all its bits.
	Net netip.Prefix
}

// Kind is a kind of place.
type Kind int

// The kinds of place.
const (
	Guest     Kind = iota
	Outside        // an address that no rule names
	Host           // an address of this host
	Nowhere        // the unspecified address
	Broadcast      // to all of a link
	Multicast
)

// widest is the longest prefix that the outside as a whole may be written as: 2000::/3,
// or one of two halves.
const widest = 3

// within is whether a place lies in a prefix. A rule for a part of a guest's subnet is
// one for other guests, which have something of their own.
func (pl Place) within(p netip.Prefix) truth {
	switch {
	case pl.Kind == Outside:
		return truthOf(p.Bits() <= widest)
	case !pl.Net.IsValid() || pl.Net.Addr().Is4() != p.Addr().Is4():
		return truthOf(p.Bits() == 0)
	}
	return truthOf(p.Bits() <= pl.Net.Bits() && p.Contains(pl.Net.Addr()))
}

// Interface tests a packet's interface, by a name or by the beginning of one.
type Interface struct {
	Out    bool
	Name   string
	Prefix bool
}

func (t Interface) holds(p Packet) truth {
	name := p.In
	if t.Out {
		name = p.Out
	}
	if t.Prefix {
		return truthOf(strings.HasPrefix(name, t.Name))
	}
	return truthOf(name != "" && name == t.Name)
}

// Address tests a packet's source or destination.
type Address struct {
	Destination bool
	Prefix      netip.Prefix
}

func (t Address) holds(p Packet) truth { return p.end(t.Destination).within(t.Prefix) }

func (p Packet) end(destination bool) Place {
	if destination {
		return p.Dst
	}
	return p.Src
}

// Protocol tests for a transport protocol.
type Protocol struct{ Number uint8 }

func (t Protocol) holds(p Packet) truth { return truthOf(p.Proto == t.Number) }

// Ports tests for ports of one end, or of either.
type Ports struct {
	Source, Destination bool
	Ranges              [][2]uint16
}

func (t Ports) holds(p Packet) truth {
	for _, r := range t.Ranges {
		// A port that no rule names is in a range that means all of them.
		in := func(port uint16) bool {
			return port >= r[0] && port <= r[1] || port == 0 && r[0] <= 1024 && r[1] == 65535
		}
		if t.Source && in(p.SrcPort) || t.Destination && in(p.DstPort) {
			return yes
		}
	}
	return no
}

// State tests for a connection's state, as conntrack has it.
type State struct{ New, Established, Untracked bool }

func (t State) holds(p Packet) truth {
	switch {
	case p.Untracked:
		return truthOf(t.Untracked)
	case p.Reply:
		return truthOf(t.Established)
	}
	return truthOf(t.New)
}

// ICMP tests for a type, of either family.
type ICMP struct{ Type uint8 }

func (t ICMP) holds(p Packet) truth { return truthOf(p.ICMPType == t.Type) }

// HopLimit tests for a hop limit, or a time to live.
type HopLimit struct{ Is uint8 }

func (t HopLimit) holds(p Packet) truth { return truthOf(p.HopLimit == t.Is) }

// Flags tests for flags of TCP: of a connection's first packet, or of later ones.
type Flags struct{ Mask, Value uint8 }

// The flags of TCP that a normal packet has.
const (
	flagSYN = 0x02
	flagACK = 0x10
)

func (t Flags) holds(p Packet) truth {
	flags := uint8(flagSYN)
	if p.Reply {
		flags = flagACK
	}
	return truthOf(flags&t.Mask == t.Value)
}

// AddressType tests for what the kernel's routes say of an address.
type AddressType struct {
	Destination bool
	Kinds       []Kind // Guest stands for what is elsewhere: unicast
}

func (t AddressType) holds(p Packet) truth {
	is := p.end(t.Destination).Kind
	if is == Outside {
		is = Guest
	}
	for _, k := range t.Kinds {
		if k == is {
			return yes
		}
	}
	return no
}

// MarkIs tests for bits of the packet's mark, or sets them.
type MarkIs struct{ Value, Mask uint32 }

func (t MarkIs) holds(p Packet) truth {
	if p.markUnknown {
		return maybe
	}
	return truthOf(p.mark&t.Mask == t.Value)
}

// Never is a test for what packets of these kinds never are: fragments, bridged frames,
// or translated to another destination.
type Never struct{}

func (Never) holds(Packet) truth { return no }

// Fixed is a test whose result is known.
type Fixed struct{ Is bool }

func (t Fixed) holds(Packet) truth { return truthOf(t.Is) }

// Perhaps is a test that is not understood.
type Perhaps struct{}

func (Perhaps) holds(Packet) truth { return maybe }

// AnyOf tests for one of several things, each of which is several tests.
type AnyOf struct{ Of [][]Test }

func (t AnyOf) holds(p Packet) truth {
	most := no
	for _, all := range t.Of {
		least := yes
		for _, test := range all {
			least = min(least, test.holds(p))
		}
		most = max(most, least)
	}
	return most
}

// AddressRange tests for an address from one to another.
type AddressRange struct {
	Destination bool
	First, Last netip.Addr
}

func (t AddressRange) holds(p Packet) truth {
	pl := p.end(t.Destination)
	if pl.Kind == Outside {
		// All but a small part of the addresses are outside.
		var lowest = t.First.As16()
		var highest = t.Last.As16()
		if t.First.Is4() {
			return truthOf(int(highest[12])-int(lowest[12]) >= 0x80)
		}
		return truthOf(lowest[0] <= 0x20 && highest[0] >= 0x3f)
	}
	in := func(a netip.Addr) bool { return a.Compare(t.First) >= 0 && a.Compare(t.Last) <= 0 }
	return truthOf(pl.Net.IsValid() && in(pl.Net.Addr()) && in(lastOf(pl.Net)))
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
