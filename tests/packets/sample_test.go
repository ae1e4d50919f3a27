package packets

import (
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/virtfirewalld/virtfirewalld/tests/model"
)

// probe is a packet of the sample: which machine sends it, to which it is
// addressed, and what the model says of it. The model's packet has the addresses
// that rules see.
type probe struct {
	model.Packet
	from, to *node // from is nil for the host itself
	want     model.Verdict
	why      []string

	sent, delivered struct{ from, to netip.AddrPort } // delivered is as it should arrive untranslated
	hop             net.HardwareAddr                  // to which the frame goes
	answers         uint32                            // of a reply: the number of the request
	number          uint32                            // of the last attempt
}

// sampler makes random probes.
type sampler struct {
	*rand.Rand
	w *wires
}

// sample returns random probes of every network: about count from its guests and
// to them.
func (w *wires) sample(count int) (probes []*probe) {
	s := sampler{w.random, w}
	for i := range w.model.Networks {
		guests := w.guests[w.model.Networks[i].Name]
		for range count {
			if p := s.probe(guests); p != nil {
				p.want, p.why = w.model.Verdict(p.Packet)
				probes = append(probes, p)
			}
		}
	}
	return probes
}

// probe returns one that involves a network's guests; nil where the family that
// was drawn has no addresses.
func (s sampler) probe(guests []*node) *probe {
	p := &probe{}
	switch s.IntN(12) {
	case 0, 1:
		p.from, p.to, p.Bridged = guests[0], guests[1], true
	case 2, 3:
		p.from, p.to = guests[0], guests[1] // through the host, as a guest without an on-link route sends
	case 4, 5:
		p.from, p.to = s.outside(), s.one(guests)
	case 6:
		p.from, p.to = s.stranger(), s.one(guests)
	case 7:
		p.to = s.outside()
	case 8, 9:
		p.from, p.to = s.one(guests), s.stranger()
	default:
		p.from, p.to = s.one(guests), s.outside()
	}
	if p.from == guests[0] && p.to == guests[1] && s.IntN(2) == 0 {
		p.from, p.to = p.to, p.from
	}
	if !s.addresses(p, s.IntN(2), guests[0].network) || p.From == p.To {
		return nil
	}
	s.protocol(p)
	return p
}

// addresses draws those of a family; ok is false where there are none. The host's
// own packets come from the network's bridge.
func (s sampler) addresses(p *probe, family int, n *model.Network) (ok bool) {
	p.Out = p.to.device
	if p.To, ok = s.address(p.to, family); !ok || p.from != nil && len(p.from.addrs[family]) == 0 {
		return false
	}
	if p.from == nil {
		p.From, ok = one(s, s.w.sources(n.Bridge, family == 1))
		return ok
	}
	p.In = p.from.device
	if p.Bridged && s.IntN(3) == 0 {
		s.elsewhere(p, family)
	}
	return s.source(p, family)
}

// address draws one of a machine. What is behind a guest comes more often than by
// chance, since few networks have it.
func (s sampler) address(n *node, family int) (netip.Addr, bool) {
	if last := len(n.addrs[family]) - 1; last >= 0 && n.network != nil && len(n.network.Routes) > 0 && s.IntN(3) == 0 {
		return n.addrs[family][last], true
	}
	return one(s, n.addrs[family])
}

// source draws the source of a packet. A quarter is somebody else's.
func (s sampler) source(p *probe, family int) (ok bool) {
	from := p.from
	switch s.IntN(16) {
	case 0:
		from = s.outside()
	case 1, 2:
		from = s.stranger()
	case 3:
		p.From = unknown[family]
		return true
	}
	p.From, ok = s.address(from, family)
	return ok
}

// elsewhere gives a frame that stays on its bridge the address of somebody else,
// or of everybody.
func (s sampler) elsewhere(p *probe, family int) {
	groups := [2][]string{{"224.0.0.251", "255.255.255.255"}, {"ff02::fb", "ff02::1"}}[family]
	if s.IntN(2) == 0 {
		p.To = netip.MustParseAddr(groups[s.IntN(2)])
	} else if a, ok := one(s, s.stranger().addrs[family]); ok {
		p.To = a
	}
}

func (s sampler) protocol(p *probe) {
	p.Proto, p.State = model.UDP, model.New
	switch {
	case p.from == nil || isGroup(p.To):
	case s.IntN(6) == 0:
		p.Proto, p.State = []model.Proto{model.TCP, model.ICMP}[s.IntN(2)], model.Invalid
	default:
		p.Proto = []model.Proto{model.TCP, model.UDP, model.ICMP}[s.IntN(3)]
	}
	source, port := uint16(1024+s.IntN(60000)), uint16(2000+s.IntN(60000))
	if s.IntN(4) == 0 {
		source = uint16(600 + s.IntN(400)) // one that only root may send from
	}
	if p.Proto == model.ICMP {
		port = source // the identifier of both
	}
	p.sent.from, p.sent.to = netip.AddrPortFrom(p.From, source), netip.AddrPortFrom(p.To, port)
	p.delivered = p.sent
	switch {
	case p.from == nil:
	case isGroup(p.To):
		p.hop = groupMAC(p.To)
	case p.Bridged:
		p.hop = p.to.tap.MAC
	default:
		p.hop = p.from.mac
	}
}

func groupMAC(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	switch {
	case a.Is6():
		return append(net.HardwareAddr{0x33, 0x33}, b[12:]...)
	case a.IsMulticast():
		return net.HardwareAddr{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

func isGroup(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// outside returns a machine that is on no network of the service.
func (s sampler) outside() *node { return s.one(s.w.outside) }

// stranger returns a guest of a random network.
func (s sampler) stranger() *node {
	networks := s.w.model.Networks
	return s.one(s.w.guests[networks[s.IntN(len(networks))].Name])
}

func (s sampler) one(nodes []*node) *node { return nodes[s.IntN(len(nodes))] }

func one(s sampler, addrs []netip.Addr) (netip.Addr, bool) {
	if len(addrs) == 0 {
		return netip.Addr{}, false
	}
	return addrs[s.IntN(len(addrs))], true
}

// reply returns the answer to a probe that arrived; nil for one that nobody
// answers. It meets the rules under its sender's own address and that of whom it
// answers: conntrack translates before and after. An answer to a forged source
// goes where that address is at home.
func (w *wires) reply(p *probe) *probe {
	if p.State != model.New || p.from == nil || isGroup(p.To) {
		return nil
	}
	got := w.became(p)[0]
	if p.In == p.Out && w.model.BridgeNetfilter && got.from != p.sent.from {
		// br_netfilter bridges what is translated back to another port, and the kernel
		// (6.18) loses some of it, with either backend.
		return nil
	}
	r := &probe{from: p.to, to: w.home[p.From], hop: got.mac, answers: p.number}
	if p.Bridged {
		r.to = p.from
	}
	r.Packet = model.Packet{In: p.Out, Out: r.to.device, From: p.To, To: p.From, Proto: p.Proto, State: model.Reply, Bridged: p.Bridged}
	r.sent.from, r.sent.to = got.to, got.from
	r.delivered.from, r.delivered.to = p.sent.to, p.sent.from
	r.want, r.why = w.model.Verdict(r.Packet)
	return r
}
