package nftables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// formerBase is the skeleton until November 2026: two base chains at filter and
// filter + 1, one for each side. A base chain's priority cannot be changed.
func formerBase() ruleset.Skeleton {
	var base ruleset.Skeleton
	for _, name := range []string{"same_bridge_id", "same_bridge_name"} {
		base.Sets = append(base.Sets, formerSet(name, 2, false))
	}
	for _, name := range []string{"from_id", "from_name", "to_id", "to_name", "nat_id", "nat_name"} {
		base.Sets = append(base.Sets, formerSet(name, 1, true))
	}
	var nat ruleset.Chain
	for _, c := range ruleset.Base(ruleset.Interface{}).Chains {
		switch c.Name {
		case ruleset.ChainRefuse, ruleset.ChainMasquerade:
			base.Chains = append(base.Chains, c)
		case ruleset.ChainNATGuests:
			nat = c
		}
	}
	nat.Rules = append(nat.Rules[:3:3], formerDispatch("nat", false)...)
	base.Chains = append(base.Chains, nat, formerSide("from", 0, false), formerSide("to", 1, true))
	return base
}

func formerSet(name string, fields int, verdicts bool) ruleset.Set {
	key := ruleset.KeyIfIndex
	if strings.HasSuffix(name, "_name") {
		key = ruleset.KeyIfName
	}
	return ruleset.Set{Name: name, Key: slices.Repeat([]ruleset.KeyType{key}, fields), Verdicts: verdicts, Size: 8192}
}

func formerSide(name string, priority int, out bool) ruleset.Chain {
	return ruleset.Chain{
		Name: name + "_guests", Hook: ruleset.Hook{Type: "filter", Hook: "forward", Priority: priority},
		Rules: append([]ruleset.Rule{
			{Matches: []ruleset.Match{ruleset.Lookup{Set: "same_bridge_id", Key: ruleset.Key(ruleset.InIndex, ruleset.OutIndex)}}, Action: ruleset.Accept{}},
			{Matches: []ruleset.Match{ruleset.Lookup{Set: "same_bridge_name", Key: ruleset.Key(ruleset.InName, ruleset.OutName)}}, Action: ruleset.Accept{}},
		}, formerDispatch(name, out)...),
	}
}

func formerDispatch(maps string, out bool) []ruleset.Rule {
	id, name := ruleset.InIndex, ruleset.InName
	if out {
		id, name = ruleset.OutIndex, ruleset.OutName
	}
	return []ruleset.Rule{
		{Action: ruleset.Dispatch{Map: maps + "_id", Field: id}},
		{Action: ruleset.Dispatch{Map: maps + "_name", Field: name}},
	}
}

// formerPart is a NAT network of that time: chains of its own, whose source's side
// accepts.
func formerPart(network, bridge string, index int, subnets ...netip.Prefix) ruleset.Part {
	names := ruleset.NamesOf(network)
	from, to, nat := ruleset.Chain{Name: names.From}, ruleset.Chain{Name: names.To}, ruleset.Chain{Name: names.NAT}
	for _, p := range subnets {
		source, destination := ruleset.Source{Prefix: p}, ruleset.Destination{Prefix: p}
		from.Rules = append(from.Rules,
			ruleset.Rule{Matches: []ruleset.Match{source, ruleset.Tracked{}}, Counter: names.From, Action: ruleset.Accept{}},
			ruleset.Rule{Matches: []ruleset.Match{source}, Counter: names.RejectedFrom, Action: ruleset.Drop{}})
		to.Rules = append(to.Rules, ruleset.Rule{Matches: []ruleset.Match{destination, ruleset.Replies{}}, Counter: names.To, Action: ruleset.Accept{}})
		nat.Rules = append(nat.Rules, ruleset.Rule{
			Matches: []ruleset.Match{source, ruleset.Destination{Prefix: p, Not: true}}, Action: ruleset.Goto{Chain: ruleset.ChainMasquerade},
		})
	}
	from.Rules = append(from.Rules, ruleset.Rule{Counter: names.RejectedFrom, Action: ruleset.Drop{}})
	to.Rules = append(to.Rules, ruleset.Rule{Counter: names.RejectedTo, Action: ruleset.Goto{Chain: ruleset.ChainRefuse}})
	part := ruleset.Part{
		Network: network, Counters: []string{names.From, names.To, names.RejectedFrom, names.RejectedTo}, Chains: []ruleset.Chain{from, to, nat},
	}
	for set, chain := range map[string]string{"same_bridge": "", "from": names.From, "to": names.To, "nat": names.NAT} {
		part.Elements = append(part.Elements,
			ruleset.Element{Set: set + "_id", Index: index, Name: bridge, Goto: chain, Comment: "network " + network},
			ruleset.Element{Set: set + "_name", Name: bridge, Goto: chain, Comment: "network " + network})
	}
	return part
}

// formerly makes a backend bring the table to what it was in November 2026: how it
// compares and changes a table is the same.
func formerly(b *Backend) {
	b.planner = planner{sets: map[string]ruleset.Set{}, sums: sums{}}
	for _, s := range formerBase().Sets {
		b.planner.sets[s.Name] = s
	}
	b.base = func(ruleset.Interface) ruleset.Skeleton { return formerBase() }
	b.config.Host = nil
}

// TestUpgradeAndDowngrade brings the table to and fro between today's and that of
// November 2026 while guests send and strangers try to reach them.
func TestUpgradeAndDowngrade(t *testing.T) {
	r := newRouter(t)
	part := r.compile(t, r.index(t, "virbr0"))
	if err := r.backend.Close(); err != nil {
		t.Fatal(err)
	}
	move := func(former bool) {
		b := open(t, r.ns)
		defer b.Close()
		if !former {
			b.config.Host = r.bystanders(t)
			mustSync(t, b, part)
			return
		}
		formerly(b)
		mustSync(t, b, formerPart("default", "virbr0", r.index(t, "virbr0"), prefix("192.168.122.0/24"), prefix("fd00:122::/64")))
	}
	move(true)
	ends := r.send(t)
	moves := 0
	for end := time.Now().Add(host.Patient(3 * time.Second)); time.Now().Before(end); moves++ {
		move(moves%2 == 1)
	}
	ends(t, moves)
}

// send has guests open flows and strangers try to, in both families, until the
// function that it returns is called, which checks what arrived.
func (r *router) send(t *testing.T) func(t *testing.T, moves int) {
	t.Helper()
	out4 := startFlows(t, r.guest, r.internet, "203.0.113.1:7000", 1000)
	out6 := startFlows(t, r.guest, r.internet, "[2001:db8:ffff::1]:7001", 1000)
	in4 := startFlows(t, r.internet, r.guest, "192.168.122.2:7002", 1000)
	in6 := startFlows(t, r.internet, r.guest, "[fd00:122::2]:7003", 1000)
	return func(t *testing.T, moves int) {
		for address, report := range map[string]host.FlowsReport{"203.0.113.2": out4.Stop(), "2001:db8:ffff::2": out6.Stop()} {
			translated := report.Addresses[netip.MustParseAddr(address)]
			if moves < 20 || report.Received < 500 || report.Lost > 0 || translated != report.Received {
				t.Errorf("%d changes: %v, want none lost and all from %s", moves, report, address)
			}
		}
		for _, report := range []host.FlowsReport{in4.Stop(), in6.Stop()} {
			if report.Sent+report.SendErrors < 100 || report.Received > 0 {
				t.Errorf("%d changes: strangers reached a guest: %v", moves, report)
			}
		}
	}
}
