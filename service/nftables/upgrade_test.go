package nftables

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// formerBase is the skeleton until November 2026: two base chains at filter and
// filter + 1, one for each side. A base chain's priority cannot be changed.
func formerBase() ruleset.Skeleton {
	base := ruleset.Base(ruleset.Interface{})
	base.Sets = slices.DeleteFunc(base.Sets, func(s ruleset.Set) bool { return s.Name == ruleset.SetBystandersID })
	var chains []ruleset.Chain
	for _, c := range base.Chains {
		switch c.Name {
		case ruleset.ChainLeaving:
			chains = append(chains, formerSide("from_guests", 0, c.Rules))
		case ruleset.ChainEntering:
			chains = append(chains, formerSide("to_guests", 1, c.Rules))
		case ruleset.ChainForward:
		default:
			chains = append(chains, c)
		}
	}
	base.Chains = chains
	return base
}

func formerSide(name string, priority int, dispatch []ruleset.Rule) ruleset.Chain {
	return ruleset.Chain{
		Name: name, Hook: ruleset.Hook{Type: "filter", Hook: "forward", Priority: priority},
		Rules: append([]ruleset.Rule{
			{Matches: []ruleset.Match{ruleset.SameBridge{Set: ruleset.SetSameID}}, Action: ruleset.Accept{}},
			{Matches: []ruleset.Match{ruleset.SameBridge{Set: ruleset.SetSameName}}, Action: ruleset.Accept{}},
		}, dispatch...),
	}
}

// formerPart is a network of that time: the source's side accepts.
func formerPart(part ruleset.Part) ruleset.Part {
	part.Chains = slices.Clone(part.Chains)
	for i, c := range part.Chains {
		part.Chains[i].Rules = slices.Clone(c.Rules)
		for j, r := range c.Rules {
			if r.Action == (ruleset.Return{}) {
				part.Chains[i].Rules[j].Action = ruleset.Accept{}
			}
		}
	}
	return part
}

// formerly makes a backend bring the table to what it was in November 2026: how it
// compares and changes a table is the same.
func formerly(b *Backend) {
	b.planner = newPlanner(nil)
	delete(b.planner.sets, ruleset.SetBystandersID)
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
		mustSync(t, b, formerPart(part))
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
	start := func(from, to *host.Peer, address string) *host.Flows {
		f, err := host.StartFlows(from, to, host.StreamConfig{To: netip.MustParseAddrPort(address), Rate: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	out4 := start(r.guest, r.internet, "203.0.113.1:7000")
	out6 := start(r.guest, r.internet, "[2001:db8:ffff::1]:7001")
	in4 := start(r.internet, r.guest, "192.168.122.2:7002")
	in6 := start(r.internet, r.guest, "[fd00:122::2]:7003")
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
