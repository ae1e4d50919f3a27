package nftables

import (
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// repair is converge from what was observed. Nothing is removed: what belongs to no
// network is swept out when all networks are in order.
func (p planner) repair(t *transaction, o *observed, part ruleset.Part) error {
	now := present{chains: make(map[string]bool), counters: make(map[string]bool)}
	for _, c := range part.Chains {
		if have := o.chains[c.Name]; have != nil {
			right, err := p.holds(have, c)
			if err != nil {
				return err
			}
			now.chains[c.Name] = !have.base && right
		}
	}
	elements, err := p.elements(part)
	if err != nil {
		return fmt.Errorf("planning network %s: %w", part.Network, err)
	}
	for _, e := range elements {
		if c, ok := o.elements[e.elementKey]; ok {
			now.elements = append(now.elements, element{e.elementKey, c})
		}
	}
	for _, name := range part.Counters {
		if _, ok := o.counters[name]; ok {
			now.counters[name] = true
		}
	}
	var s steps
	if err := p.converge(&s, now, part); err != nil {
		return err
	}
	t.add(&s.before)
	t.add(&s.now)
	return nil
}

// holds reports whether the observed chain has exactly the rules of c.
func (p planner) holds(have *observedChain, c ruleset.Chain) (bool, error) {
	want, err := p.digestOf(c.Rules)
	return err == nil && !have.foreign && have.rules == want, err
}

// broken is what is wrong with the skeleton.
type broken struct {
	unusable bool // something has another type, which cannot be changed
	sets     []ruleset.Set
	chains   []ruleset.Chain
	refill   []ruleset.Chain
}

func (b broken) any() bool {
	return b.unusable || len(b.sets)+len(b.chains)+len(b.refill) > 0
}

func (p planner) brokenSkeleton(o *observed, base ruleset.Skeleton) (broken, error) {
	out := broken{unusable: o.catchall}
	for _, s := range base.Sets {
		have, ok := o.sets[s.Name]
		same, err := have.matches(s)
		switch {
		case err != nil:
			return out, err
		case !ok:
			out.sets = append(out.sets, s)
		case !same:
			out.unusable = true
		}
	}
	for _, c := range base.Chains {
		have, ok := o.chains[c.Name]
		if !ok {
			out.chains = append(out.chains, c)
			continue
		}
		same, err := have.matches(c)
		if err != nil {
			return out, err
		}
		right, err := p.holds(have, c)
		if err != nil {
			return out, err
		}
		if !same {
			out.unusable = true
		} else if !right || have.base && have.policy != uint32(nftables.ChainPolicyAccept) {
			out.refill = append(out.refill, c)
		}
	}
	return out, nil
}

// matches compares what cannot be changed while a set exists.
func (o observedSet) matches(s ruleset.Set) (bool, error) {
	want, err := encodeSet(nil, s)
	if err != nil {
		return false, err
	}
	var flags, data uint32
	if want.IsMap {
		flags, data = unix.NFT_SET_MAP, unix.NFT_DATA_VERDICT
	}
	if want.Concatenation {
		flags |= nftables.NFT_SET_CONCAT
	}
	return o == observedSet{flags, want.KeyType.GetNFTMagic(), want.KeyType.Bytes, data}, nil
}

// matches compares what cannot be changed while a chain exists.
func (o *observedChain) matches(c ruleset.Chain) (bool, error) {
	if c.Hook == (ruleset.Hook{}) {
		return !o.base, nil
	}
	hook, err := hookNumber(c.Hook.Hook)
	if err != nil {
		return false, err
	}
	return o.base && o.typ == c.Hook.Type && o.hook == uint32(*hook) && int(o.priority) == c.Hook.Priority, nil
}
