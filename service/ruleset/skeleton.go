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

// Base returns the skeleton that all networks share: maps of every managed bridge,
// and base chains that look each packet up. An accept would end the base chain, so
// the source's side returns what may pass, and the destination's side decides then.
func Base(uplink Interface) Skeleton {
	return Skeleton{Sets: baseSets(), Chains: []Chain{
		{Name: ChainRefuse, Rules: []Rule{
			{Matches: []Match{Protocol{}}, Action: ResetTCP{}, Comment: "a refused connection ends at once"},
			{Action: Unreachable{}, Comment: "and so does everything else"},
		}},
		masqueradeChain(),
		{Name: ChainLeaving, Rules: dispatch(false, MapFromID, MapFromName)},
		{Name: ChainEntering, Rules: dispatch(true, MapToID, MapToName)},
		ForwardChain(uplink),
		{Name: ChainNATGuests, Hook: Hook{Type: "nat", Hook: "postrouting", Priority: prioritySrcNAT},
			Rules: append(untranslated(), dispatch(false, MapNATID, MapNATName)...)},
	}}
}

func baseSets() []Set {
	id, name := KeyIfIndex, KeyIfName
	pairs := func(set string, key KeyType) Set {
		return Set{Name: set, Key: []KeyType{key, key}, Size: networksSize}
	}
	chains := func(set string, key KeyType) Set {
		return Set{Name: set, Key: []KeyType{key}, Verdicts: true, Size: networksSize}
	}
	return []Set{
		{Name: SetBystandersID, Key: []KeyType{id}, Size: MostBystanders},
		pairs(SetSameID, id), pairs(SetSameName, name),
		chains(MapFromID, id), chains(MapFromName, name),
		chains(MapToID, id), chains(MapToName, name),
		chains(MapNATID, id), chains(MapNATName, name),
	}
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
		rules = oneSide(Uplink{uplink, true}, Uplink{uplink, false}, "the uplink")
	}
	rules = append(rules, oneSide(Bystander{Out: true}, Bystander{}, "an interface that no network can have")...)
	return Chain{
		Name: ChainForward, Hook: Hook{Type: "filter", Hook: "forward", Priority: priorityForward},
		Rules: append(rules, bothSides()...),
	}
}

func oneSide(to, from Match, what string) []Rule {
	return []Rule{
		{Matches: []Match{to}, Action: Goto{Chain: ChainLeaving}, Comment: comment("to %s: the source decides", what)},
		{Matches: []Match{from}, Action: Goto{Chain: ChainEntering}, Comment: comment("from %s: the destination decides", what)},
	}
}

func bothSides() []Rule {
	const stays = "stays on its bridge"
	return []Rule{
		{Matches: []Match{SameBridge{Set: SetSameID}}, Action: Accept{}, Comment: stays},
		{Matches: []Match{SameBridge{Set: SetSameName}}, Action: Accept{}, Comment: stays},
		{Action: Jump{Chain: ChainLeaving}, Comment: "else the source decides first,"},
		{Action: Goto{Chain: ChainEntering}, Comment: "and then the destination"},
	}
}

// dispatch looks the packet's bridge up by index, which follows a bridge
// through a rename, and then by name, which outlives its deletion.
func dispatch(out bool, byID, byName string) []Rule {
	side := "from"
	if out {
		side = "to"
	}
	return []Rule{
		{Action: Dispatch{Map: byID, Out: out, Key: KeyIfIndex}, Comment: comment("packets %s guests, by the bridge's interface ID", side)},
		{Action: Dispatch{Map: byName, Out: out, Key: KeyIfName}, Comment: comment("the same by name, for a bridge made anew")},
	}
}

// untranslated exempts what never leaves the link (224.0.0.0/24, ff02::/16) and
// broadcasts, since strict DHCP clients refuse replies from a rewritten port.
func untranslated() []Rule {
	var rules []Rule
	for _, p := range []string{"224.0.0.0/24", "255.255.255.255/32", "ff02::/16"} {
		rules = append(rules, Rule{
			Matches: []Match{Destination{Prefix: netip.MustParsePrefix(p)}},
			Action:  Accept{}, Comment: "link-local multicast and broadcast keep their source",
		})
	}
	return rules
}
