package model

import "slices"

// difference is one of the deliberate ones. apply returns the verdict of a
// packet that had v with libvirt and the differences before this one.
type difference struct {
	name         string
	nftablesOnly bool // the iptables backend is libvirt's to the rule
	apply        func(h *Host, p Packet, v Verdict) Verdict
}

// differences are those of docs/differences.md that decide on packets, in the order
// in which they build on each other. The others are about which networks are
// accepted (D5: a range of one port, which Generate makes; D12), about the host (D6,
// D7).
var differences = []difference{
	{"D10: any of several devices, where libvirt accepts one", false, anyDevice},
	{"D3: the subnet of a <route> is as good as the network's own", false, subnetsBehind},
	{"D9: a network without IPv6 forwards none", true, noIPv6},
	{"D1: both ends decide", true, bothEnds},
	{"D4: a forged source is dropped", true, forgedSource},
	{"D11: what cannot be translated does not leave for the outside", true, untranslatable},
	{"D8: unmanaged traffic with a source of the network keeps it", true, unmanagedSource},
	{"D13: a frame that stays on its bridge keeps its source", true, bridged},
	{"D4: refused TCP is reset", true, resetTCP},
}

// anyDevice is D10: libvirt's rules, had they one for each device. libvirt accepts
// one at most; the model gives it the first.
func anyDevice(h *Host, p Packet, _ Verdict) Verdict {
	return h.allDevices.verdict(p)
}

// subnetsBehind is D3: libvirt's rules, had they those of the subnets behind
// guests too. Between such a subnet and the network's own, packets keep their
// source in both directions. libvirt translates only from the network's own.
func subnetsBehind(h *Host, p Packet, _ Verdict) Verdict {
	v := h.withRoutes.verdict(p)
	if n := h.owner(p.From); n != nil && n == h.owner(p.To) {
		behind := n.behind(p.ipv6())
		if anyContains(behind, p.From) || anyContains(behind, p.To) {
			v.Translation = Translation{}
		}
	}
	return v
}

// noIPv6 is D9. libvirt has no rules there, since it switches IPv6 off on such a
// bridge; on another's bridge nothing does. A frame that stays on its bridge is
// not forwarded.
func noIPv6(h *Host, p Packet, v Verdict) Verdict {
	if !p.ipv6() || p.In == p.Out {
		return v
	}
	for _, bridge := range []string{p.In, p.Out} {
		if n := h.governed(bridge); n != nil && len(n.own(true)) == 0 {
			return Verdict{Fate: Refused, How: PortUnreachable}
		}
	}
	return v
}

// bothEnds is D1: where the destination let a packet in, its source's own rules
// must let it out too.
func bothEnds(h *Host, p Packet, v Verdict) Verdict {
	if v.Fate != Passes || p.In == p.Out || h.governed(p.In) == nil {
		return v
	}
	if r := first(h.withRoutes.output, p); r != nil && r.action == reject {
		return Verdict{Fate: Refused, How: PortUnreachable}
	}
	return v
}

// forgedSource is one half of D4: an answer would go to whom the address belongs.
func forgedSource(h *Host, p Packet, v Verdict) Verdict {
	n := h.governed(p.In)
	if n == nil || p.In == p.Out {
		return v
	}
	subnets := append(n.own(p.ipv6()), n.behind(p.ipv6())...)
	if len(subnets) > 0 && !anyContains(subnets, p.From) {
		return Verdict{Fate: Dropped}
	}
	return v
}

// untranslatable is D11.
func untranslatable(h *Host, p Packet, v Verdict) Verdict {
	n := h.governed(p.In)
	if n != nil && v.Fate == Passes && p.State == Invalid && p.In != p.Out && n.translates(p.ipv6()) && h.governed(p.Out) == nil {
		return Verdict{Fate: Dropped}
	}
	return v
}

// unmanagedSource is D8: libvirt's NAT rules match by source address alone.
func unmanagedSource(h *Host, p Packet, v Verdict) Verdict {
	if n := h.governed(p.In); v.Translation.Network != "" && (n == nil || n.Name != v.Translation.Network) {
		v.Translation = Translation{}
	}
	return v
}

// resetTCP is the other half of D4.
func resetTCP(_ *Host, p Packet, v Verdict) Verdict {
	if v.Fate == Refused && p.Proto == TCP {
		v.How = TCPReset
	}
	return v
}

// bridged is D13: libvirt's NAT rules also match frames that br_netfilter shows them,
// and translate those that are addressed to another subnet than the sender's. The
// service translates by the interface that a packet arrived on, which such a frame
// no longer has in postrouting.
func bridged(_ *Host, p Packet, v Verdict) Verdict {
	if p.Bridged {
		v.Translation = Translation{}
	}
	return v
}

// asLibvirtHas returns networks as libvirt can have them: with one device.
func asLibvirtHas(networks []Network) []Network {
	networks = slices.Clone(networks)
	for i := range networks {
		networks[i].Devices = networks[i].Devices[:min(1, len(networks[i].Devices))]
	}
	return networks
}

// routesAsSubnets returns networks whose subnets behind guests are their own. An
// isolated network has nothing to route.
func routesAsSubnets(networks []Network) []Network {
	networks = slices.Clone(networks)
	for i := range networks {
		n := &networks[i]
		if n.Mode == Isolated {
			continue
		}
		n.Addresses = slices.Clone(n.Addresses)
		for _, r := range n.Routes {
			n.Addresses = append(n.Addresses, r.Subnet)
		}
	}
	return networks
}
