package model

import (
	"fmt"
	"net/netip"
)

// Proto is a packet's protocol.
type Proto string

// The protocols that rules distinguish, and one that has no ports.
const (
	TCP  Proto = "TCP"
	UDP  Proto = "UDP"
	ICMP Proto = "ICMP"
)

// State is what conntrack calls a packet.
type State string

// The states.
const (
	New     State = "new"
	Reply   State = "reply"
	Invalid State = "invalid"
)

// Packet is a packet on its way through the host.
type Packet struct {
	In, Out  string // the devices; a packet that the host itself sends has no In
	From, To netip.Addr
	Proto    Proto
	State    State
	// Bridged is a frame from one port of a bridge to another, which the host does
	// not route. Rules see it only with br_netfilter.
	Bridged bool
}

func (p Packet) String() string {
	way := fmt.Sprintf("%s -> %s", p.In, p.Out)
	switch {
	case p.In == "":
		way = "host -> " + p.Out
	case p.Bridged:
		way = "bridged on " + p.In
	}
	return fmt.Sprintf("%s, %s %s from %s to %s", way, p.State, p.Proto, p.From, p.To)
}

func (p Packet) ipv6() bool { return p.From.Is6() }

// Fate is what becomes of a packet.
type Fate string

// The fates.
const (
	Passes  Fate = "passes"
	Refused Fate = "refused"
	Dropped Fate = "dropped"
)

// How a packet is refused.
const (
	PortUnreachable = "port unreachable"
	TCPReset        = "TCP reset"
)

// Verdict is a packet's fate, and how it leaves or is answered.
type Verdict struct {
	Fate        Fate
	How         string      // of Refused
	Translation Translation // of Passes; the zero value keeps the source
}

// Translation is the source that a packet gets.
type Translation struct {
	Network string // whose rule it is; "" for no translation
	Device  string // whose addresses the source is one of, if there is no pool
	Pool    Range
	Ports   [2]uint16 // of TCP and UDP
}

func (v Verdict) String() string {
	text := string(v.Fate)
	if v.How != "" {
		text += ", " + v.How
	}
	if v.Translation.Network != "" {
		text += fmt.Sprintf(", translated by %s", v.Translation.Network)
		if v.Translation.Pool.First.IsValid() {
			text += fmt.Sprintf(" to %s-%s", v.Translation.Pool.First, v.Translation.Pool.Last)
		} else {
			text += " to an address of " + v.Translation.Device
		}
		if p := v.Translation.Ports; p[1] != 0 {
			text += fmt.Sprintf(" ports %d-%d", p[0], p[1])
		}
	}
	return text
}
