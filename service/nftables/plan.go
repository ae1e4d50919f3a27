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
	sets map[string]ruleset.Set
	sums sums
	// userDataOnly: rules are compared by their user data alone, since this
	// kernel does not return expressions as they were sent.
	userDataOnly bool
}

func newPlanner() planner {
	p := planner{sets: make(map[string]ruleset.Set), sums: sums{}}
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

// steps are the transactions of one change, which are made one after another.
//
// The kernel evaluates a packet with the rules of the generation in which it entered a
// base chain, but looks elements up in the current one. So a chain is there before
// elements of a network in force lead to it: a packet that the commit overtakes would
// find it empty, and pass (1 of 4,000 new flows left untranslated in 3,000 swaps). What
// a network may no longer do goes after what it may do now is there, so that each packet
// meets one of the two. And what is translated goes last: a packet that passed the
// forward hook is on its way to postrouting.
type steps struct {
	before, now, later, last transaction
}

// converge adds the steps that turn what the kernel holds of a network into the part.
func (p planner) converge(s *steps, now present, part ruleset.Part) error {
	elements, err := p.elements(part)
	if err != nil {
		return fmt.Errorf("planning network %s: %w", part.Network, err)
	}
	fresh := &s.now // where new chains go
	if len(now.elements) > 0 {
		fresh = &s.before
	}
	wanted := make(map[string]bool, len(part.Chains))
	for _, c := range part.Chains {
		wanted[c.Name] = true
		if right, there := now.chains[c.Name]; !there {
			fresh.chains = append(fresh.chains, c)
		} else if !right {
			s.now.refill = append(s.now.refill, c)
		}
	}
	nat := ruleset.NamesOf(part.Network).NAT
	for name := range now.chains {
		switch {
		case wanted[name]:
		case name == nat:
			s.last.delChains = append(s.last.delChains, name)
		default:
			s.later.delChains = append(s.later.delChains, name)
		}
	}
	s.swapElements(now.elements, elements)
	for _, name := range part.Counters {
		if !now.counters[name] {
			fresh.counters = append(fresh.counters, counter{name: name})
		}
	}
	for name := range now.counters {
		if !slices.Contains(part.Counters, name) {
			s.later.delCounters = append(s.later.delCounters, name)
		}
	}
	return nil
}

// swapElements changes elements in one transaction where their key stays, and removes
// others later.
func (s *steps) swapElements(have, want []element) {
	var t transaction
	swapElements(&t, have, want)
	s.now.addElements = append(s.now.addElements, t.addElements...)
	for _, e := range t.delElements {
		again := slices.ContainsFunc(t.addElements, func(n element) bool { return n.elementKey == e.elementKey })
		switch {
		case again:
			s.now.delElements = append(s.now.delElements, e)
		case ruleset.Translates(e.set):
			s.last.delElements = append(s.last.delElements, e)
		default:
			s.later.delElements = append(s.later.delElements, e)
		}
	}
}

// settle moves removals of elements that another network of the change gets into the
// transaction that adds them: a key is unique in its set.
func (s *steps) settle() {
	added := make(map[elementKey]bool, len(s.now.addElements))
	for _, e := range s.now.addElements {
		added[e.elementKey] = true
	}
	for _, t := range []*transaction{&s.later, &s.last} {
		t.delElements = slices.DeleteFunc(t.delElements, func(e element) bool {
			if added[e.elementKey] {
				s.now.delElements = append(s.now.delElements, e)
			}
			return added[e.elementKey]
		})
	}
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
		out = append(out, element{elementKey{e.Set, key}, content{e.Goto, cut(e.Comment), set.Counts != 0}})
	}
	return out, nil
}
