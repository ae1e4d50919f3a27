package nftables

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// present is what the kernel holds of one network.
type present struct {
	right    bool   // the chains are as they should be,
	suffix   string // under their names with this suffix
	chains   []string
	elements []element
	counters map[string]bool
}

// planner computes transactions. It talks to nobody.
type planner struct {
	base  ruleset.Skeleton
	sets  map[string]ruleset.Set
	start func(network string) ruleset.Counters
}

func newPlanner(start func(string) ruleset.Counters) planner {
	p := planner{base: ruleset.Base(), sets: make(map[string]ruleset.Set), start: start}
	for _, s := range p.base.Sets {
		p.sets[s.Name] = s
	}
	return p
}

// skeleton adds what all networks hang on.
func (p planner) skeleton(t *transaction) {
	t.sets = append(t.sets, p.base.Sets...)
	t.chains = append(t.chains, p.base.Chains...)
}

// converge adds what brings a network from what the kernel holds to the part.
// Chains that differ are built beside the old ones, under a suffix that none
// of them has, and the elements swapped: so no packet meets a half-built chain.
// It gives the suffix then in use and the chains that are no longer.
func (p planner) converge(t *transaction, now present, part ruleset.Part) (suffix string, old []string, err error) {
	suffix = now.suffix
	if !now.right {
		suffix = freeSuffix(now.chains)
	}
	wanted := withSuffix(part, suffix)
	elements, err := p.elements(wanted)
	if err != nil {
		return "", nil, fmt.Errorf("planning network %s: %w", part.Network, err)
	}
	if !now.right {
		t.chains = append(t.chains, wanted.Chains...)
	}
	for _, name := range now.chains {
		if !slices.ContainsFunc(wanted.Chains, func(c ruleset.Chain) bool { return c.Name == name }) {
			old = append(old, name)
		}
	}
	swapElements(t, now.elements, elements)
	p.swapCounters(t, now.counters, part)
	return suffix, old, nil
}

// remove adds what takes a network out.
func (p planner) remove(t *transaction, now present) {
	t.delElements = append(t.delElements, now.elements...)
	t.delChains = append(t.delChains, now.chains...)
	for name := range now.counters {
		t.delCounters = append(t.delCounters, name)
	}
}

// swapElements changes a verdict by deleting the element and adding it again
// in the same batch: the kernel has no other way.
func swapElements(t *transaction, have, want []element) {
	now := make(map[place]content, len(have))
	for _, e := range have {
		now[e.place] = e.content
	}
	for _, e := range want {
		old, ok := now[e.place]
		delete(now, e.place)
		if ok && old == e.content {
			continue
		}
		if ok {
			t.delElements = append(t.delElements, element{e.place, old})
		}
		t.addElements = append(t.addElements, e)
	}
	for _, e := range have {
		if _, left := now[e.place]; left {
			t.delElements = append(t.delElements, e)
		}
	}
}

// swapCounters leaves those alone that stay, with their values.
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

// elements are a part's elements as the kernel holds them.
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
		out = append(out, element{place{e.Set, key}, content{e.Goto, cut(e.Comment)}})
	}
	return out, nil
}

// withSuffix gives a part whose chains have the suffix, wherever it names them.
func withSuffix(p ruleset.Part, suffix string) ruleset.Part {
	if suffix == "" {
		return p
	}
	rename := func(chain string) string {
		if slices.ContainsFunc(p.Chains, func(c ruleset.Chain) bool { return c.Name == chain }) {
			return chain + suffix
		}
		return chain
	}
	out := p
	out.Chains = slices.Clone(p.Chains)
	for i, c := range out.Chains {
		out.Chains[i].Name = c.Name + suffix
		out.Chains[i].Rules = slices.Clone(c.Rules)
		for j, r := range c.Rules {
			if g, ok := r.Action.(ruleset.Goto); ok {
				out.Chains[i].Rules[j].Action = ruleset.Goto{Chain: rename(g.Chain)}
			}
		}
	}
	out.Elements = slices.Clone(p.Elements)
	for i, e := range out.Elements {
		out.Elements[i].Goto = rename(e.Goto)
	}
	return out
}

// splitSuffix takes a chain's name apart. Names of parts never contain a dot.
func splitSuffix(chain string) (name, suffix string) {
	i := strings.LastIndexByte(chain, '.')
	if i < 0 {
		return chain, ""
	}
	if _, err := strconv.ParseUint(chain[i+1:], 10, 32); err != nil {
		return chain, ""
	}
	return chain[:i], chain[i:]
}

// freeSuffix is the first that none of the chains has: "", ".2", ".3" and so on.
func freeSuffix(chains []string) string {
	taken := make(map[string]bool, len(chains))
	for _, c := range chains {
		_, suffix := splitSuffix(c)
		taken[suffix] = true
	}
	suffix := ""
	for n := 2; taken[suffix]; n++ {
		suffix = "." + strconv.Itoa(n)
	}
	return suffix
}
