// Package ruleset is the service's own form of its nftables rules: plain values
// with no netlink, no process and no bus in them. Compile computes the rules of
// one network, Base the part that all networks share, and Text prints either as
// nft would list it. The nftables backend turns the same values into netlink.
package ruleset

import "net/netip"

// TableName is the one table of the service, in the inet family. It is the name of
// libvirt's own two tables (ip and ip6), so that administrators find the rules where
// they expect them.
const TableName = "libvirt_network"

// Names of the base chains.
const (
	ChainForward   = "forward_guests" // forward hook, filter - 1
	ChainNATGuests = "nat_guests"     // postrouting hook, srcnat
)

// Names of the regular chains that networks share.
const (
	ChainSource      = "source"           // the source's side of a forwarded packet
	ChainDestination = "destination"      // the destination's side
	ChainToUplink    = "to_uplink"        // the usual packet's source's side
	ChainFromUplink  = "from_uplink"      // and destination's side
	ChainRefuse      = "refuse"           // TCP reset, else port unreachable
	ChainMasquerade  = "masquerade_guest" // the default translation: ports 1024-65535

	chainUntranslatable = "untranslatable"
)

// Skeleton holds the sets and chains that all networks share. It is created with
// the first network and deleted with the last.
type Skeleton struct {
	Sets   []Set
	Chains []Chain
}

// Part is what belongs to one network, as a value that can be compared.
type Part struct {
	Network  string   // the network's name
	Counters []string // of the rules in its own chains
	Chains   []Chain
	Elements []Element
}

// Set is a named set, or with Verdicts a verdict map.
type Set struct {
	Name     string
	Key      []KeyType // concatenated where there are several
	Verdicts bool
	Counts   Counts // what the counters of its elements count
	Size     int    // the most elements; 0 for no limit
}

// Counts is what a counter counts; zero for none.
type Counts int

// What is counted.
const (
	CountsFrom Counts = iota + 1
	CountsTo
	CountsRejectedFrom
	CountsRejectedTo
)

// AllCounts returns everything that is counted of a network.
func AllCounts() []Counts {
	return []Counts{CountsFrom, CountsTo, CountsRejectedFrom, CountsRejectedTo}
}

// KeyType is the type of one field of a set's key.
type KeyType string

// The key types in use, by nft's names.
const (
	KeyIfIndex KeyType = "iface_index"
	KeyIfName  KeyType = "ifname"
	KeyIPv4    KeyType = "ipv4_addr"
	KeyIPv6    KeyType = "ipv6_addr"
	KeyFamily  KeyType = "nf_proto"
)

// Element is one element of a set or map. The set's key says which of its values make
// its own key: the bridge by index or by name, for each such field; the addresses in
// their order; the family.
type Element struct {
	Set       string
	Index     int    // for sets keyed by index
	Name      string // for sets keyed by name; beside Index the name to print
	Addresses [2]netip.Addr
	IPv6      bool   // the family
	Goto      string // the chain, for maps
	Comment   string
	Total     Total // what its counter has counted; in listings only
}

// Chain is a base chain where Hook is set, else a regular one.
type Chain struct {
	Name  string
	Hook  Hook
	Rules []Rule
}

// Hook is where a base chain is attached. Its policy is always accept: the service
// leaves unmanaged traffic alone.
type Hook struct {
	Type     string // filter | nat
	Hook     string // forward | postrouting
	Priority int    // -1 = filter - 1, 100 = srcnat
}

// Rule is one rule: all Matches must hold, then Counter counts and Action acts.
type Rule struct {
	Matches []Match
	Counter string // name of a counter; "" for none
	Action  Action
	Comment string
}

// Match is one condition of a rule: exactly one of the types below.
type Match interface{ text() string }

// Family matches packets of one family.
type Family struct{ IPv6 bool }

// OutDevice matches the output interface by name, now or when it appears.
type OutDevice struct{ Name string }

// InDevice matches the input interface by name.
type InDevice struct{ Name string }

// Source matches the source address.
type Source struct{ Prefix netip.Prefix }

// Destination matches the destination address, or with Not all others of the
// same family.
type Destination struct {
	Prefix netip.Prefix
	Not    bool
}

// Protocol matches the transport protocol.
type Protocol struct{ UDP bool } // TCP otherwise

// Replies matches packets of connections that are established or related to one.
type Replies struct{}

// Tracked matches packets of connections that conntrack follows, new ones too:
// the rest is never translated, since only they pass the nat hooks.
type Tracked struct{}

// Untracked matches all other packets.
type Untracked struct{}

// Lookup matches packets whose fields are an element of a set.
type Lookup struct {
	Set string
	Key Fields
}

// Fields are the fields of a look-up; zero at the end.
type Fields [3]Field

// Key returns the fields of a look-up.
func Key(fields ...Field) (k Fields) {
	copy(k[:], fields)
	return k
}

// Field is what is looked up of a packet.
type Field int

// The fields in use. Addresses are those of their /24 or /64.
const (
	InIndex Field = iota + 1
	OutIndex
	InName
	OutName
	FamilyField
	Source4
	Destination4
	Source6
	Destination6
)

// Uplink matches packets from the interface by its index, or with Out packets to it.
type Uplink struct {
	Interface Interface
	Out       bool
}

// Action is what a rule does: exactly one of the types below, or nil to continue
// with the next rule.
type Action interface{ verb() string }

// Accept ends this base chain for the packet.
type Accept struct{}

// Drop discards the packet without an answer.
type Drop struct{}

// Goto continues in another chain and does not return.
type Goto struct{ Chain string }

// Jump continues in another chain, and then with the next rule.
type Jump struct{ Chain string }

// Return leaves the chain: the packet has passed this side.
type Return struct{}

// ResetTCP answers with a TCP reset.
type ResetTCP struct{}

// Unreachable answers with ICMP or ICMPv6 port unreachable.
type Unreachable struct{}

// Dispatch goes to the chain that a verdict map names for a field of the packet. A
// packet that is not in the map continues with the next rule.
type Dispatch struct {
	Map   string
	Field Field
}

// Masquerade translates the source to the outgoing interface's address, and with
// Ports to a source port of that range.
type Masquerade struct{ Ports Ports }

// SNAT translates the source to an address of the range, and with Ports to a source
// port of that range.
type SNAT struct {
	First, Last netip.Addr
	Ports       Ports
}

// Foreign stands for a rule that another program put between the service's own,
// or in the place of one. It is for listings alone: no backend makes it.
type Foreign struct{ Handle uint64 }

// Ports is an inclusive range; zero for none.
type Ports struct{ First, Last uint16 }

// Interface is an interface of the host.
type Interface struct {
	Index int
	Name  string
}

// Host is what the rules know of the host's interfaces.
type Host struct {
	Bystanders []Interface // those that no network can have
	Uplink     int         // index of the one that most packets pass; 0 for none
}

// BystanderElement returns the element of an interface that no network can have.
func BystanderElement(i Interface) Element {
	return Element{Set: SetBystandersID, Index: i.Index, Name: i.Name}
}

// Change is one transaction: networks that are added or whose rules are replaced,
// and networks that are removed. Order does not matter; a name is in at most one of
// the two.
type Change struct {
	Set    []Part
	Remove []string
}

// Of returns one of the totals. The bytes of what was rejected are not counted.
func (c Counters) Of(what Counts) Total {
	return map[Counts]Total{
		CountsFrom: {c.FromGuestPackets, c.FromGuestBytes}, CountsTo: {c.ToGuestPackets, c.ToGuestBytes},
		CountsRejectedFrom: {Packets: c.RejectedFromGuestPackets}, CountsRejectedTo: {Packets: c.RejectedToGuestPackets},
	}[what]
}

// Add adds to one of the totals.
func (c *Counters) Add(what Counts, t Total) {
	switch what {
	case CountsFrom:
		c.FromGuestPackets, c.FromGuestBytes = c.FromGuestPackets+t.Packets, c.FromGuestBytes+t.Bytes
	case CountsTo:
		c.ToGuestPackets, c.ToGuestBytes = c.ToGuestPackets+t.Packets, c.ToGuestBytes+t.Bytes
	case CountsRejectedFrom:
		c.RejectedFromGuestPackets += t.Packets
	case CountsRejectedTo:
		c.RejectedToGuestPackets += t.Packets
	}
}

// Counters are a network's totals of forwarded packets.
type Counters struct {
	FromGuestPackets, FromGuestBytes uint64
	ToGuestPackets, ToGuestBytes     uint64
	RejectedFromGuestPackets         uint64
	RejectedToGuestPackets           uint64
}
