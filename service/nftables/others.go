package nftables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// otherElements returns the elements of the interfaces that no network can have,
// beside networks with these parts. One that has the name or the index of a network's
// bridge is left out, whatever it is: its packets belong to the network.
func (b *Backend) otherElements(parts []ruleset.Part) ([]element, error) {
	if b.config.Others == nil {
		return nil, nil
	}
	names, indexes := map[string]bool{}, map[int]bool{}
	for _, p := range parts {
		for _, e := range p.Elements {
			names[e.Name] = true
			indexes[e.Index] = true
		}
	}
	var all ruleset.Part
	for _, i := range b.config.Others() {
		if !names[i.Name] && !indexes[i.Index] && len(all.Elements) < ruleset.MostOthers {
			all.Elements = append(all.Elements, ruleset.OtherElement(i))
		}
	}
	return b.planner.elements(all)
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

// others returns what the kernel holds of the set of interfaces that no network can
// have.
func (o *observed) others() (out []element) {
	for key, value := range o.elements {
		if key.set == ruleset.SetOthersID {
			out = append(out, element{key, value})
		}
	}
	return out
}

// believed reports whether the kernel takes an interface for one that no network can
// have which the service did not put there: packets of it may pass unseen.
func (o *observed) believed(put []element) bool {
	return slices.ContainsFunc(o.others(), func(e element) bool { return !slices.Contains(put, e) })
}
