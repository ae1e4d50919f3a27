package nftables

import (
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// bystanders are the interfaces that no network can have, as the table knows them.
type bystanders struct {
	uplink   ruleset.Interface // one of them that has rules of its own; zero for none
	elements []element         // of the set of all
}

// bystandersOf returns the host's bystanders beside networks with these parts. What
// has the name or the index of a network's bridge is none, whatever it is: its packets
// belong to the network.
func (b *Backend) bystandersOf(parts []ruleset.Part) (out bystanders, err error) {
	if b.config.Host == nil {
		return out, nil
	}
	host := b.config.Host()
	governed := make(map[ruleset.Interface]bool)
	names, indexes := make(map[string]ruleset.Interface), make(map[int]ruleset.Interface)
	for _, i := range host.Bystanders {
		names[i.Name], indexes[i.Index] = i, i
	}
	for _, p := range parts {
		for _, e := range p.Elements {
			if e.Governs() {
				governed[names[e.Name]], governed[indexes[e.Index]] = true, true
			}
		}
	}
	var all ruleset.Part
	for _, i := range host.Bystanders {
		if governed[i] || len(all.Elements) == ruleset.MostBystanders {
			continue
		}
		all.Elements = append(all.Elements, ruleset.BystanderElement(i))
		if i.Index == host.Uplink {
			out.uplink = i
		}
	}
	if out.elements, err = b.planner.elements(all); err != nil {
		return out, fmt.Errorf("planning the interfaces of no network: %w", err)
	}
	return out, nil
}

// planBystanders adds what brings the bystanders in line with the host, and returns
// those after the change.
func (b *Backend) planBystanders(t *transaction, change ruleset.Change) (bystanders, error) {
	after := b.partsAfter(change)
	if len(after) == 0 {
		return bystanders{}, nil
	}
	next, err := b.bystandersOf(after)
	if err != nil {
		return bystanders{}, err
	}
	swapElements(t, b.bystanders.elements, next.elements)
	if len(b.installed) == 0 {
		skeleton(t, b.base(next.uplink))
	} else if next.uplink != b.bystanders.uplink {
		t.refill = append(t.refill, ruleset.ForwardChain(next.uplink))
	}
	return next, nil
}

// partsAfter returns the parts of all networks once a change is made.
func (b *Backend) partsAfter(change ruleset.Change) []ruleset.Part {
	left := make([]ruleset.Part, 0, len(b.installed)+len(change.Set))
	changed := make(map[string]bool, len(change.Set)+len(change.Remove))
	for _, p := range change.Set {
		changed[p.Network] = true
		left = append(left, p)
	}
	for _, name := range change.Remove {
		changed[name] = true
	}
	for name, in := range b.installed {
		if !changed[name] {
			left = append(left, in.part)
		}
	}
	return left
}

// bystanders returns the elements that the kernel has in the set of them.
func (o *observed) bystanders() (out []element) {
	for key, value := range o.elements {
		if key.set == ruleset.SetBystandersID {
			out = append(out, element{key, value})
		}
	}
	return out
}

// strangers reports whether the kernel takes an interface for a bystander that is none
// of these: its packets may meet no network's rules.
func (o *observed) strangers(known bystanders) bool {
	return slices.ContainsFunc(o.bystanders(), func(e element) bool { return !slices.Contains(known.elements, e) })
}
