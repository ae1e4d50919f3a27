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
	ChainLeaving    = "leaving"          // the source's side of a forwarded packet
	ChainEntering   = "entering"         // the destination's side
	ChainRefuse     = "refuse"           // TCP reset, else port unreachable
	ChainMasquerade = "masquerade_guest" // the default translation: ports 1024-65535
)

// SetBystandersID holds the interfaces that no network can have, by index: what comes
// from or goes to one of them has only one side that decides. No verdict depends on
// it, only how many rules a packet meets.
const SetBystandersID = "bystanders_id"

// Names of the networks' maps and sets. Each is keyed by interface index ("id") or
// by interface name; the two have the same content.
const (
	SetSameID   = "same_bridge_id"
	SetSameName = "same_bridge_name"
	MapFromID   = "from_id"
	MapFromName = "from_name"
	MapToID     = "to_id"
	MapToName   = "to_name"
	MapNATID    = "nat_id"
	MapNATName  = "nat_name"
)

// Declared sizes: the kernel's hash tables never grow under traffic, and are
// allocated in full (32 bytes for each element that fits).
const (
	networksSize   = 8192 // twice the most networks there may be
	MostBystanders = 1024 // elements of SetBystandersID
)

// Skeleton holds the sets and chains that all networks share. It is created with
// the first network and deleted with the last.
type Skeleton struct {
	Sets   []Set
	Chains []Chain
}

// Part is what belongs to one network, as a value that can be compared.
type Part struct {
	Network  string // the network's name
	Counters []string
	Chains   []Chain
	Elements []Element
}

// Set is a named set, or with Verdicts a verdict map.
type Set struct {
	Name     string
	Key      []KeyType // concatenated where there are several
	Size     int       // the most elements
	Verdicts bool
}

// KeyType is the type of one field of a set's key.
type KeyType string

// The key types in use, by nft's names.
const (
	KeyIfIndex KeyType = "iface_index"
	KeyIfName  KeyType = "ifname"
)

// Element is one element of a set or map. Its key is the bridge, by index or by
// name as the set's type says, once for each field of the key.
type Element struct {
	Set     string
	Index   int    // for sets keyed by index
	Name    string // for sets keyed by name; beside Index the name to print
	Goto    string // the chain, for maps
	Comment string
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

// ToBridge matches packets that leave by the bridge of a network with rules; Set
// is SetSameID or SetSameName, asked for the output interface twice.
type ToBridge struct{ Set string }

// SameBridge matches packets that leave by the bridge they arrived on; Set is
// SetSameID or SetSameName.
type SameBridge struct{ Set string }

// Bystander matches packets from an interface that no network can have, or with Out
// packets to one.
type Bystander struct{ Out bool }

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

// Dispatch goes to the chain that a verdict map names for the packet's input
// or, with Out, output interface. A packet that is not in the map continues with the
// next rule.
type Dispatch struct {
	Map string
	Out bool
	Key KeyType
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

// Counters are a network's totals of forwarded packets.
type Counters struct {
	FromGuestPackets, FromGuestBytes uint64
	ToGuestPackets, ToGuestBytes     uint64
	RejectedFromGuestPackets         uint64
	RejectedToGuestPackets           uint64
}
