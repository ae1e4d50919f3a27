package model

import "net/netip"

// action is what a rule does with a packet that it matches.
type action int

const (
	accept action = iota
	reject
	translate
	leave // NAT's "return": the packet keeps its source
)

// rule is a rule of libvirt's as its nftables backend writes it. What is not set
// matches everything.
type rule struct {
	ipv6            bool // libvirt has a table for each family
	in, out         string
	from, to, notTo netip.Prefix
	reply           bool // ct state related,established
	proto           Proto
	action          action
	translation     Translation
}

// chains are libvirt's four. They are flat: the rules of all networks follow
// each other, and match by bridge.
type chains struct{ cross, input, output, nat []rule }

// rulesOf returns the chains for networks. Which network comes first makes no
// difference, since no two share a bridge or a subnet.
func rulesOf(networks []Network) *chains {
	c := &chains{}
	for i := range networks {
		n := &networks[i]
		if n.Mode == Open {
			continue
		}
		c.add(n, false)
		if len(n.own(true)) > 0 || n.GuestIPv6 {
			c.add(n, true)
		}
	}
	return c
}

// add adds a network's rules of one family. The general ones come last.
func (c *chains) add(n *Network, ipv6 bool) {
	c.cross = append(c.cross, rule{ipv6: ipv6, in: n.Bridge, out: n.Bridge, action: accept})
	devices := n.Devices
	if len(devices) == 0 {
		devices = []string{""}
	}
	for _, subnet := range n.own(ipv6) {
		if n.Mode == Isolated {
			continue
		}
		for _, device := range devices {
			c.output = append(c.output, rule{ipv6: ipv6, from: subnet, in: n.Bridge, out: device, action: accept})
			c.input = append(c.input, rule{ipv6: ipv6, in: device, out: n.Bridge, to: subnet, reply: n.translates(ipv6), action: accept})
			if n.translates(ipv6) {
				c.translate(n, subnet, device)
			}
		}
	}
	c.input = append(c.input, rule{ipv6: ipv6, out: n.Bridge, action: reject})
	c.output = append(c.output, rule{ipv6: ipv6, in: n.Bridge, action: reject})
}

// translate adds the NAT rules of one subnet. Link-local multicast and broadcasts
// come first; they keep their source.
func (c *chains) translate(n *Network, subnet netip.Prefix, device string) {
	ipv6 := subnet.Addr().Is6()
	exempt := []string{"224.0.0.0/24", "255.255.255.255/32"}
	t := Translation{Network: n.Name, Pool: n.Pool}
	if ipv6 {
		exempt, t.Pool = []string{"ff02::/16"}, n.Pool6
	}
	for _, e := range exempt {
		c.nat = append(c.nat, rule{ipv6: ipv6, out: device, from: subnet, to: netip.MustParsePrefix(e), action: leave})
	}
	withPorts := t
	withPorts.Ports = n.ports()
	for _, proto := range []Proto{TCP, UDP} {
		c.nat = append(c.nat, rule{ipv6: ipv6, proto: proto, from: subnet, notTo: subnet, out: device, action: translate, translation: withPorts})
	}
	c.nat = append(c.nat, rule{ipv6: ipv6, from: subnet, notTo: subnet, out: device, action: translate, translation: t})
}

func (r *rule) matches(p Packet) bool {
	return r.ipv6 == p.ipv6() &&
		(r.in == "" || r.in == p.In) && (r.out == "" || r.out == p.Out) &&
		(!r.from.IsValid() || r.from.Contains(p.From)) && (!r.to.IsValid() || r.to.Contains(p.To)) &&
		(!r.notTo.IsValid() || !r.notTo.Contains(p.To)) &&
		(!r.reply || p.State == Reply) && (r.proto == "" || r.proto == p.Proto)
}

// first returns the first rule of a chain that matches a packet; nil for none.
func first(chain []rule, p Packet) *rule {
	for i := range chain {
		if chain[i].matches(p) {
			return &chain[i]
		}
	}
	return nil
}

// forward returns what the forward chain does with a packet: cross, input and
// output in this order, so that the destination decides before the source.
func (c *chains) forward(p Packet) action {
	for _, chain := range [][]rule{c.cross, c.input, c.output} {
		if r := first(chain, p); r != nil {
			return r.action
		}
	}
	return accept
}

// verdict returns what libvirt's rules do with a packet. Only the first packet of
// a connection meets NAT; its replies are translated back by conntrack, and what
// is invalid is not translated at all.
func (c *chains) verdict(p Packet) Verdict {
	if p.In != "" && c.forward(p) == reject {
		return Verdict{Fate: Refused, How: PortUnreachable}
	}
	v := Verdict{Fate: Passes}
	if p.State == New {
		if r := first(c.nat, p); r != nil && r.action == translate {
			v.Translation = r.translation
			v.Translation.Device = p.Out
		}
	}
	return v
}
