package ruleset

import (
	"net/netip"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Source ports of translated TCP and UDP if the network sets none.
const (
	defaultFirstPort = 1024
	defaultLastPort  = 65535
)

// Compile returns the rules of one network. index is the interface index of its
// bridge, 0 while there is none: then the rules match by name alone. names default
// to the network's own. ok is false for a network that has no rules (libvirt's open
// mode).
//
// Most networks are elements of the sets that all share. One with chosen devices, or
// with subnets of other lengths than sets have, has chains of its own; one with an
// address pool or ports of its own has them for its translation alone.
func Compile(n network.Network, index int, names ...string) (part Part, ok bool) {
	if n.Mode == network.ModeOpen {
		return Part{}, false
	}
	if names == nil {
		names = []string{n.Bridge}
	}
	c := compiler{net: n, names: NamesOf(n.Name), subnets: n.Subnets()}
	part = Part{Network: n.Name}
	own, ownNAT := !c.standard(), !c.standard() || !c.standardNAT()
	if own {
		part.Counters = []string{c.names.From, c.names.To, c.names.RejectedFrom, c.names.RejectedTo}
		part.Chains = []Chain{{Name: c.names.From, Rules: c.from()}, {Name: c.names.To, Rules: c.to()}}
	}
	nat := c.nat()
	if ownNAT && len(nat) > 0 {
		part.Chains = append(part.Chains, Chain{Name: c.names.NAT, Rules: nat})
	}
	e := elements{compiler: c, index: index, bridges: names}
	e.shared()
	if own {
		e.bridge(mapFrom, c.names.From)
		e.bridge(mapTo, c.names.To)
	} else {
		e.sides()
	}
	if ownNAT && len(nat) > 0 {
		e.bridge(mapNAT, c.names.NAT)
	} else if !ownNAT {
		e.masqueraded()
	}
	part.Elements = e.all
	return part, true
}

type compiler struct {
	net     network.Network
	names   Names
	subnets []netip.Prefix
}

func (c compiler) comment(format string, args ...any) string {
	return comment("%s: "+format, append([]any{c.net.Name}, args...)...)
}

// forwards reports whether anything may leave or enter the network at all.
func (c compiler) forwards() bool { return c.net.Mode != network.ModeIsolated }

// translates reports whether the source address of this subnet's packets is
// translated.
func (c compiler) translates(p netip.Prefix) bool {
	return c.net.Mode == network.ModeNAT && (p.Addr().Is4() || c.net.NATIPv6)
}

// from returns the source's side: what guests may send out. A source that is not
// the network's is dropped without an answer, which would only go to the owner of
// the forged address.
func (c compiler) from() []Rule {
	var rules []Rule
	restricted := !c.forwards() || len(c.net.Devices) > 0
	for _, p := range c.subnets {
		if c.forwards() {
			for _, dev := range c.devices() {
				rules = append(rules, c.out(p, dev)...)
			}
		}
	}
	for _, p := range c.subnets {
		if restricted {
			rules = append(rules, Rule{
				Matches: []Match{Source{Prefix: p}}, Counter: c.names.RejectedFrom, Action: Goto{Chain: ChainRefuse},
				Comment: c.comment("guests of %s may not go anywhere else", p),
			})
		}
	}
	return append(rules, c.forgedSources()...)
}

// out lets traffic of a subnet's guests out through one device. Packets that
// conntrack does not track (a reset of a forgotten connection, invalid flags, an
// ICMP error that answers nothing) are never translated, so from a translated subnet
// they would leave with the guest's own address: they may only go to other networks'
// guests, whose side then decides as for all packets. The usual packet matches the
// first rule.
func (c compiler) out(p netip.Prefix, dev string) []Rule {
	pass := func(text string, more ...Match) Rule {
		return Rule{
			Matches: append(outThrough(dev, Source{Prefix: p}), more...), Counter: c.names.From, Action: Return{},
			Comment: c.comment(text, p),
		}
	}
	if !c.translates(p) {
		return []Rule{pass("guests of %s may go out")}
	}
	const within = "what cannot be translated reaches other networks from %s"
	return []Rule{
		pass("guests of %s may go out", Tracked{}),
		pass(within, Lookup{setGuests + "_id", Key(OutIndex)}),
		pass(within, Lookup{setGuests + "_name", Key(OutName)}),
		{
			Matches: outThrough(dev, Source{Prefix: p}), Counter: c.names.RejectedFrom, Action: Drop{},
			Comment: c.comment("and does not leave with an address of %s", p),
		},
	}
}

// forgedSources ends the source's side: it refuses forged sources in the families
// that the network has, and everything of a family that it lacks.
func (c compiler) forgedSources() []Rule {
	var has4, has6 bool
	for _, p := range c.subnets {
		has4, has6 = has4 || p.Addr().Is4(), has6 || p.Addr().Is6()
	}
	forged := Rule{Counter: c.names.RejectedFrom, Action: Drop{}, Comment: c.comment("no guest here has this source address")}
	refused := Rule{Counter: c.names.RejectedFrom, Action: Goto{Chain: ChainRefuse}, Comment: c.comment("nothing else leaves")}
	switch {
	case has4 && has6:
		return []Rule{forged}
	case has4 || has6:
		forged.Matches = []Match{Family{IPv6: has6}}
		return []Rule{forged, refused}
	}
	return []Rule{refused}
}

// to returns the destination's side: what may reach guests from elsewhere.
func (c compiler) to() []Rule {
	var rules []Rule
	for _, p := range c.subnets {
		if !c.forwards() {
			continue
		}
		for _, dev := range c.devices() {
			match, text := inThrough(dev, Destination{Prefix: p}), c.comment("anyone may reach guests of %s", p)
			if c.translates(p) {
				match, text = append(match, Replies{}), c.comment("replies reach guests of %s", p)
			}
			rules = append(rules, Rule{Matches: match, Counter: c.names.To, Action: Accept{}, Comment: text})
		}
	}
	return append(rules, Rule{
		Counter: c.names.RejectedTo, Action: Goto{Chain: ChainRefuse}, Comment: c.comment("nothing else gets in"),
	})
}

// nat translates what leaves each subnet for somewhere else. Subnets behind a
// guest (routes) belong to the network: between them and it nothing changes. That
// comes before all translations, since a subnet may lie in another one.
func (c compiler) nat() []Rule {
	var untranslated, translated []Rule
	for _, p := range c.subnets {
		if !c.translates(p) {
			continue
		}
		for _, to := range c.net.UntranslatedTo(p) {
			untranslated = append(untranslated, Rule{
				Matches: []Match{Source{Prefix: p}, Destination{Prefix: to}}, Action: Accept{},
				Comment: c.comment("%s sees the real addresses of %s", to, p),
			})
		}
		for _, dev := range c.devices() {
			translated = append(translated, c.translate(p, dev)...)
		}
	}
	return append(untranslated, translated...)
}

// translate returns the translation of one subnet out of one device, as libvirt
// does it: ports apply to TCP and UDP alone.
func (c compiler) translate(p netip.Prefix, dev string) []Rule {
	match := func(more ...Match) []Match {
		return append(outThrough(dev, Source{Prefix: p}, Destination{Prefix: p, Not: true}), more...)
	}
	text := c.comment("%s is translated", p)
	pool, ports := c.pool(p), c.ports()
	if pool.IsZero() && ports == standardPorts() {
		return []Rule{{Matches: match(), Action: Goto{Chain: ChainMasquerade}, Comment: text}}
	}
	action := func(ports Ports) Action {
		if pool.IsZero() {
			return Masquerade{Ports: ports}
		}
		return SNAT{First: pool.First, Last: pool.Last, Ports: ports}
	}
	return []Rule{
		{Matches: match(Protocol{}), Action: action(ports), Comment: text},
		{Matches: match(Protocol{UDP: true}), Action: action(ports), Comment: text},
		{Matches: match(), Action: action(Ports{}), Comment: text},
	}
}

func standardPorts() Ports { return Ports{First: defaultFirstPort, Last: defaultLastPort} }

// ports returns the source ports of translated TCP and UDP.
func (c compiler) ports() Ports {
	if c.net.NATPorts == (network.PortRange{}) {
		return standardPorts()
	}
	return Ports{First: c.net.NATPorts.First, Last: c.net.NATPorts.Last}
}

// pool returns the addresses that a subnet's sources become; zero for the host's own.
func (c compiler) pool(p netip.Prefix) network.AddrRange {
	if p.Addr().Is6() {
		return c.net.NATAddresses6
	}
	return c.net.NATAddresses
}

// devices returns the forward devices, or one "" for any.
func (c compiler) devices() []string {
	if len(c.net.Devices) == 0 {
		return []string{""}
	}
	return c.net.Devices
}

func outThrough(dev string, m ...Match) []Match {
	if dev == "" {
		return m
	}
	return append([]Match{OutDevice{Name: dev}}, m...)
}

func inThrough(dev string, m ...Match) []Match {
	if dev == "" {
		return m
	}
	return append([]Match{InDevice{Name: dev}}, m...)
}
