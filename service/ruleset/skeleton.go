package ruleset

import "net/netip"

// Priorities of the base chains, by nft's names filter and srcnat. The two
// sides of a forwarded packet sit on the same hook, the source's first, because
// an accept ends only its own base chain: so both must let the packet pass.
const (
	priorityFilter = 0
	prioritySrcNAT = 100
)

// Base returns the skeleton that all networks share: maps of every managed bridge,
// and base chains that look each packet up once.
func Base() Skeleton {
	return Skeleton{Sets: baseSets(), Chains: []Chain{
		{Name: ChainRefuse, Rules: []Rule{
			{Matches: []Match{Protocol{}}, Action: ResetTCP{}, Comment: "a refused connection ends at once"},
			{Action: Unreachable{}, Comment: "and so does everything else"},
		}},
		masqueradeChain(),
		{Name: ChainFromGuests, Hook: Hook{Type: "filter", Hook: "forward", Priority: priorityFilter},
			Rules: append(sameBridge(), dispatch(false, MapFromID, MapFromName)...)},
		{Name: ChainToGuests, Hook: Hook{Type: "filter", Hook: "forward", Priority: priorityFilter + 1},
			Rules: append(sameBridge(), dispatch(true, MapToID, MapToName)...)},
		{Name: ChainNATGuests, Hook: Hook{Type: "nat", Hook: "postrouting", Priority: prioritySrcNAT},
			Rules: append(untranslated(), dispatch(false, MapNATID, MapNATName)...)},
	}}
}

func baseSets() []Set {
	id, name := KeyIfIndex, KeyIfName
	return []Set{
		{Name: SetSameID, Key: []KeyType{id, id}},
		{Name: SetSameName, Key: []KeyType{name, name}},
		{Name: MapFromID, Key: []KeyType{id}, Verdicts: true},
		{Name: MapFromName, Key: []KeyType{name}, Verdicts: true},
		{Name: MapToID, Key: []KeyType{id}, Verdicts: true},
		{Name: MapToName, Key: []KeyType{name}, Verdicts: true},
		{Name: MapNATID, Key: []KeyType{id}, Verdicts: true},
		{Name: MapNATName, Key: []KeyType{name}, Verdicts: true},
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

// sameBridge accepts routed or br_netfilter traffic that leaves by the bridge it
// arrived on.
func sameBridge() []Rule {
	const why = "stays on its bridge"
	return []Rule{
		{Matches: []Match{SameBridge{Set: SetSameID}}, Action: Accept{}, Comment: why},
		{Matches: []Match{SameBridge{Set: SetSameName}}, Action: Accept{}, Comment: why},
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
