package ruleset

import "net/netip"

// Priorities of the base chains, by nft's names filter and srcnat. Forwarded packets
// are decided on before iptables' filter tables see them: at the same priority the
// table that was made last would come first.
const (
	priorityFilter  = 0
	priorityForward = priorityFilter - 1
	prioritySrcNAT  = 100
)

// Base returns the skeleton that all networks share: sets of what they may do, and
// rules that look each packet up in them and never change but for the uplink. An
// accept would end the base chain, so the source's side returns what may pass, and
// the destination's side decides then.
//
// What a network may do hangs on its element in the set of guests, and its refusals
// hang on elements too: so each packet that a change overtakes meets the rules of
// before or those of after. The kernel looks elements up as they are at the moment.
func Base(uplink Interface) Skeleton {
	chains := []Chain{
		{Name: ChainRefuse, Rules: []Rule{
			{Matches: []Match{Protocol{}}, Action: ResetTCP{}, Comment: "a refused connection ends at once"},
			{Action: Unreachable{}, Comment: "and so does everything else"},
		}},
		masqueradeChain(),
	}
	for _, h := range halves() {
		chains = append(chains, h.untranslatable(), h.source(), h.destination())
	}
	chains = append(chains, sourceSide(), destinationSide(), toUplink(), fromUplink(), ForwardChain(uplink),
		Chain{Name: ChainNATGuests, Hook: Hook{Type: "nat", Hook: "postrouting", Priority: prioritySrcNAT}, Rules: natGuests()})
	return Skeleton{Sets: baseSets(), Chains: chains}
}

// masqueradeChain returns the default translation of networks. Guests do not get
// ports below 1024, as with libvirt: servers such as NFS trust them.
func masqueradeChain() Chain {
	ports := Ports{First: defaultFirstPort, Last: defaultLastPort}
	return Chain{Name: ChainMasquerade, Rules: []Rule{
		{Matches: []Match{Protocol{}}, Action: Masquerade{Ports: ports}, Comment: "guests get no privileged source port"},
		{Matches: []Match{Protocol{UDP: true}}, Action: Masquerade{Ports: ports}, Comment: "guests get no privileged source port"},
		{Action: Masquerade{}, Comment: "other protocols have no ports"},
	}}
}

// ForwardChain returns the base chain of forwarded packets, which asks each side that
// a packet has. Most packets have one, since they come from the uplink or go there: to
// compare with it costs half of what a look-up does. Routed or br_netfilter traffic
// that leaves by the bridge it arrived on passes.
func ForwardChain(uplink Interface) Chain {
	var rules []Rule
	if uplink != (Interface{}) {
		rules = []Rule{
			{Matches: []Match{Uplink{uplink, false}}, Action: Goto{Chain: ChainFromUplink}, Comment: "from the uplink: the destination decides"},
			{Matches: []Match{Uplink{uplink, true}}, Action: Goto{Chain: ChainToUplink}, Comment: "to the uplink: the source decides"},
		}
	}
	rules = append(rules,
		Rule{Matches: []Match{toBystander()}, Action: Goto{Chain: ChainSource}, Comment: "to an interface that no network can have: the source decides"},
		Rule{Matches: []Match{fromBystander()}, Action: Goto{Chain: ChainDestination}, Comment: "from such: the destination decides"},
	)
	for _, h := range halves() {
		rules = append(rules, Rule{Matches: []Match{Lookup{setSameBridge + h.end, Key(h.in, h.out)}}, Action: Accept{}, Comment: "stays on its bridge"})
	}
	rules = append(rules,
		Rule{Action: Jump{Chain: ChainSource}, Comment: "else the source decides first,"},
		Rule{Action: Goto{Chain: ChainDestination}, Comment: "and then the destination"},
	)
	return Chain{Name: ChainForward, Hook: Hook{Type: "filter", Hook: "forward", Priority: priorityForward}, Rules: rules}
}

func toBystander() Match   { return Lookup{SetBystandersID, Key(OutIndex)} }
func fromBystander() Match { return Lookup{SetBystandersID, Key(InIndex)} }

// toUplink lets the usual packet out of its network at the first look-up.
func toUplink() Chain {
	return usual(ChainToUplink, ChainSource, "guests may go out", func(f family) []Match {
		return []Match{Tracked{}, Lookup{setMayLeave + f.digit + "_id", Key(InIndex, f.source)}}
	})
}

// fromUplink lets the usual packet into its network at the first look-up.
func fromUplink() Chain {
	return usual(ChainFromUplink, ChainDestination, "replies reach guests", func(f family) []Match {
		return []Match{Replies{}, Lookup{setReplies + f.digit + "_id", Key(OutIndex, f.destination)}}
	})
}

// usual accepts what matches in either family, and has all else looked at by next.
func usual(name, next, why string, matches func(family) []Match) Chain {
	c := Chain{Name: name}
	for _, f := range families() {
		c.Rules = append(c.Rules, Rule{Matches: matches(f), Action: Accept{}, Comment: why})
	}
	c.Rules = append(c.Rules, Rule{Action: Goto{Chain: next}, Comment: "all else is looked at closely"})
	return c
}

// sourceSide asks for the source's network by index, which follows a bridge through a
// rename, and then by name, which outlives its deletion.
func sourceSide() Chain {
	c := Chain{Name: ChainSource, Rules: []Rule{{Matches: []Match{fromBystander()}, Action: Return{}, Comment: "no network's"}}}
	for _, h := range halves() {
		c.Rules = append(c.Rules, Rule{Matches: []Match{Lookup{setGuests + h.end, Key(h.in)}}, Action: Goto{Chain: ChainSource + h.end}, Comment: h.why("from guests")})
	}
	return c
}

// destinationSide asks for the destination's network in the same way.
func destinationSide() Chain {
	c := Chain{Name: ChainDestination, Rules: []Rule{{Matches: []Match{toBystander()}, Action: Return{}, Comment: "no network's"}}}
	for _, h := range halves() {
		c.Rules = append(c.Rules, Rule{Matches: []Match{Lookup{setGuests + h.end, Key(h.out)}}, Action: Goto{Chain: ChainDestination + h.end}, Comment: h.why("to guests")})
	}
	return c
}

func (h half) why(what string) string {
	if h.key == KeyIfIndex {
		return what + ", by the bridge's interface ID"
	}
	return what + ", by name, for a bridge made anew"
}

// source decides for the source's side. A source that is not the network's is dropped
// without an answer, which would only go to the owner of the forged address.
func (h half) source() Chain {
	refused := Lookup{setRefusedFrom + h.end, Key(h.in)}
	rules := []Rule{
		{Action: Dispatch{mapFrom + h.end, h.in}, Comment: "networks that have chains of their own"},
		{Matches: []Match{Untracked{}}, Action: Jump{Chain: chainUntranslatable + h.end}, Comment: "what conntrack does not follow cannot be translated"},
	}
	for _, f := range families() {
		rules = append(rules, Rule{Matches: []Match{Lookup{setMayLeave + f.digit + h.end, Key(h.in, f.source)}}, Action: Return{}, Comment: "guests may go out"})
	}
	for _, f := range families() {
		rules = append(rules, Rule{
			Matches: []Match{Lookup{setIsolated + f.digit + h.end, Key(h.in, f.source)}, refused}, Action: Goto{Chain: ChainRefuse},
			Comment: "isolated guests reach nobody else",
		})
	}
	rules = append(rules,
		Rule{Matches: []Match{Lookup{setFamilies + h.end, Key(h.in, FamilyField)}, refused}, Action: Drop{}, Comment: "no guest here has this source address"},
		Rule{Matches: []Match{refused}, Action: Goto{Chain: ChainRefuse}, Comment: "nothing else leaves"},
	)
	return Chain{Name: ChainSource + h.end, Rules: append(rules, h.byName(InName, ChainSource)...)}
}

// untranslatable stops packets that conntrack does not track (a reset of a forgotten
// connection, invalid flags, an ICMP error that answers nothing): from a translated
// subnet they would leave with the guest's own address. They may go to other networks'
// guests, whose side then decides as for all packets.
func (h half) untranslatable() Chain {
	var rules []Rule
	for _, other := range halves() {
		rules = append(rules, Rule{Matches: []Match{Lookup{setGuests + other.end, Key(other.out)}}, Action: Return{}, Comment: "another network decides"})
	}
	for _, f := range families() {
		rules = append(rules, Rule{
			Matches: []Match{Lookup{setTranslated + f.digit + h.end, Key(h.in, f.source)}, Lookup{setRefusedFrom + h.end, Key(h.in)}},
			Action:  Drop{}, Comment: "it does not leave with a guest's own address",
		})
	}
	return Chain{Name: chainUntranslatable + h.end, Rules: rules}
}

// destination decides for the destination's side.
func (h half) destination() Chain {
	rules := []Rule{{Action: Dispatch{mapTo + h.end, h.out}, Comment: "networks that have chains of their own"}}
	for _, f := range families() {
		rules = append(rules, Rule{
			Matches: []Match{Replies{}, Lookup{setReplies + f.digit + h.end, Key(h.out, f.destination)}}, Action: Accept{}, Comment: "replies reach guests",
		})
	}
	for _, f := range families() {
		rules = append(rules, Rule{
			Matches: []Match{Lookup{setAnyone + f.digit + h.end, Key(h.out, f.destination)}}, Action: Accept{}, Comment: "anyone reaches guests of routed subnets",
		})
	}
	rules = append(rules, Rule{Matches: []Match{Lookup{setRefusedTo + h.end, Key(h.out)}}, Action: Goto{Chain: ChainRefuse}, Comment: "nothing else gets in"})
	return Chain{Name: ChainDestination + h.end, Rules: append(rules, h.byName(OutName, ChainDestination)...)}
}

// byName goes on by name where the elements of an index went while the packet was
// between two look-ups, as they do when a bridge is deleted.
func (h half) byName(name Field, chain string) []Rule {
	if h.key != KeyIfIndex {
		return nil
	}
	return []Rule{{
		Matches: []Match{Lookup{setGuests + "_name", Key(name)}}, Action: Goto{Chain: chain + "_name"},
		Comment: "the interface ID went this moment: by name",
	}}
}

// natGuests translates the sources of guests. What never leaves the link (224.0.0.0/24,
// ff02::/16) and broadcasts keep theirs, since strict DHCP clients refuse replies from
// a rewritten port.
func natGuests() []Rule {
	var rules []Rule
	for _, p := range []string{"224.0.0.0/24", "255.255.255.255/32", "ff02::/16"} {
		rules = append(rules, Rule{
			Matches: []Match{Destination{Prefix: netip.MustParsePrefix(p)}},
			Action:  Accept{}, Comment: "link-local multicast and broadcast keep their source",
		})
	}
	for _, h := range halves() {
		for _, f := range families() {
			rules = append(rules, Rule{
				Matches: []Match{Lookup{setUntranslated + f.digit + h.end, Key(h.in, f.source, f.destination)}}, Action: Accept{},
				Comment: "guests see each other's addresses",
			})
		}
		for _, f := range families() {
			rules = append(rules, Rule{
				Matches: []Match{Lookup{setMasqueraded + f.digit + h.end, Key(h.in, f.source)}}, Action: Goto{Chain: ChainMasquerade},
				Comment: "guests go out under the host's address",
			})
		}
		rules = append(rules, Rule{Action: Dispatch{mapNAT + h.end, h.in}, Comment: "networks that have chains of their own"})
	}
	return rules
}
