package nftables

import (
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// present is what the kernel holds of one network.
type present struct {
	chains   map[string]bool // those that exist; true if their rules are right
	elements []element
	counters map[string]bool
}

// planner computes transactions. It does no I/O.
type planner struct {
	sets  map[string]ruleset.Set
	start func(network string) ruleset.Counters
	sums  sums
	// userDataOnly: rules are compared by their user data alone, since this
	// kernel does not return expressions as they were sent.
	userDataOnly bool
}

func newPlanner(start func(string) ruleset.Counters) planner {
	p := planner{sets: make(map[string]ruleset.Set), start: start, sums: sums{}}
	for _, s := range ruleset.Base(ruleset.Interface{}).Sets {
		p.sets[s.Name] = s
	}
	return p
}

// skeleton adds the sets and chains that all networks share.
func skeleton(t *transaction, base ruleset.Skeleton) {
	t.sets = append(t.sets, base.Sets...)
	t.chains = append(t.chains, base.Chains...)
}

// converge adds the steps that turn what the kernel holds into the part.
//
// Chains that differ are flushed and refilled under their names. The kernel
// evaluates a packet with the rules of the generation in which it entered a base
// chain, but looks elements up in the current one: if elements led to chains that
// are new in the same batch, a packet that the commit overtakes would find those
// empty, and pass (1 of 4,000 new flows left untranslated in 3,000 swaps).
func (p planner) converge(t *transaction, now present, part ruleset.Part) error {
	elements, err := p.elements(part)
	if err != nil {
		return fmt.Errorf("planning network %s: %w", part.Network, err)
	}
	wanted := make(map[string]bool, len(part.Chains))
	for _, c := range part.Chains {
		wanted[c.Name] = true
		if right, there := now.chains[c.Name]; !there {
			t.chains = append(t.chains, c)
		} else if !right {
			t.refill = append(t.refill, c)
		}
	}
	for name := range now.chains {
		if !wanted[name] {
			t.delChains = append(t.delChains, name)
		}
	}
	swapElements(t, now.elements, elements)
	p.swapCounters(t, now.counters, part)
	return nil
}

// remove adds the steps that delete a network.
func (p planner) remove(t *transaction, now present) {
	t.delElements = append(t.delElements, now.elements...)
	for name := range now.chains {
		t.delChains = append(t.delChains, name)
	}
	for name := range now.counters {
		t.delCounters = append(t.delCounters, name)
	}
}

// swapElements changes a verdict by deleting the element and adding it again
// in the same batch: the kernel has no other way.
func swapElements(t *transaction, have, want []element) {
	now := make(map[elementKey]content, len(have))
	for _, e := range have {
		now[e.elementKey] = e.content
	}
	for _, e := range want {
		old, ok := now[e.elementKey]
		delete(now, e.elementKey)
		if ok && old == e.content {
			continue
		}
		if ok {
			t.delElements = append(t.delElements, element{e.elementKey, old})
		}
		t.addElements = append(t.addElements, e)
	}
	for _, e := range have {
		if _, left := now[e.elementKey]; left {
			t.delElements = append(t.delElements, e)
		}
	}
}

// swapCounters adds and deletes counters; those that stay keep their values.
func (p planner) swapCounters(t *transaction, have map[string]bool, part ruleset.Part) {
	for _, name := range part.Counters {
		if !have[name] {
			t.counters = append(t.counters, p.newCounter(part.Network, name))
		}
	}
	for name := range have {
		if !slices.Contains(part.Counters, name) {
			t.delCounters = append(t.delCounters, name)
		}
	}
}

func (p planner) newCounter(network, name string) counter {
	c := counter{name: name}
	if p.start == nil {
		return c
	}
	v, names := p.start(network), ruleset.NamesOf(network)
	switch name {
	case names.From:
		c.packets, c.bytes = v.FromGuestPackets, v.FromGuestBytes
	case names.To:
		c.packets, c.bytes = v.ToGuestPackets, v.ToGuestBytes
	case names.RejectedFrom:
		c.packets = v.RejectedFromGuestPackets
	case names.RejectedTo:
		c.packets = v.RejectedToGuestPackets
	}
	return c
}

// elements returns a part's elements as the kernel holds them.
func (p planner) elements(part ruleset.Part) ([]element, error) {
	out := make([]element, 0, len(part.Elements))
	for _, e := range part.Elements {
		set, ok := p.sets[e.Set]
		if !ok {
			return nil, fmt.Errorf("there is no set %q", e.Set)
		}
		if set.Verdicts != (e.Goto != "") {
			return nil, fmt.Errorf("element %q of %s: a map's elements lead to a chain, a set's do not", e.Name, e.Set)
		}
		key, err := keyOf(set, e)
		if err != nil {
			return nil, err
		}
		out = append(out, element{elementKey{e.Set, key}, content{e.Goto, cut(e.Comment)}})
	}
	return out, nil
}
