package service

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// transition is one network's way from what was to what shall be: old is nil
// for a new network, next for one that goes.
type transition struct {
	old, next *managed
	// zoneAsked says that the caller named a zone just now, so that a bridge
	// which cannot enter it fails the change.
	zoneAsked bool
	// zoneStays says that the bridge is left in its zone, though the network goes:
	// it is libvirt's too, which put it there.
	zoneStays bool
	// resets says that the network's counters begin at zero.
	resets bool
	// stays is what holds for the old bridge until it has left its zone, and
	// displaces what held for the new one until now; nil for nothing.
	stays, displaces *managed
}

func (t transition) name() string {
	if t.next != nil {
		return t.next.net.Name
	}
	return t.old.net.Name
}

// changeOf is the kernel's share of transitions.
func changeOf(ts []transition) backend.Change {
	var c backend.Change
	for _, t := range ts {
		switch {
		case t.next != nil && t.next.hasRules:
			c.Set = append(c.Set, t.next.member())
		case t.old != nil && t.old.hasRules:
			c.Remove = append(c.Remove, t.name())
		}
		if t.stays != nil && t.stays.hasRules {
			c.Set = append(c.Set, t.stays.member())
		}
		if t.displaces != nil && t.displaces.hasRules {
			c.Remove = append(c.Remove, t.displaces.net.Name)
		}
	}
	return c
}

func reversed(ts []transition) []transition {
	out := make([]transition, len(ts))
	for i, t := range ts {
		out[i] = transition{old: t.next, next: t.old, stays: t.displaces, displaces: t.stays}
	}
	return out
}

// change is the registry's share of a transition.
func (t transition) change() registry.Change[*managed] {
	return registry.Change[*managed]{Old: t.old, Next: t.next}
}

// askedOf returns the transition while firewalld is being asked: until it answers
// it is not known which zone the bridge is in.
func (t transition) askedOf(c *binding.Session) transition {
	if !c.Asks(t.zoning()) {
		return t
	}
	next := *t.next
	next.zone.Unseen = true
	t.next = &next
	return t
}

// movesLink reports whether another link is the network's, or another name.
func (t transition) movesLink() bool {
	if t.old == nil || t.next == nil {
		return true
	}
	return t.old.net.Bridge != t.next.net.Bridge || t.old.bridge.index != t.next.bridge.index
}

// findsOtherwise reports whether other things are found of the network than
// before.
func (t transition) findsOtherwise() bool {
	var old, next []finding.Finding
	if t.old != nil {
		old = t.old.findings()
	}
	if t.next != nil {
		next = t.next.findings()
	}
	return !slices.Equal(old, next)
}

func eventOf(t transition) Event {
	switch {
	case t.old == nil && t.next == nil:
		return nil
	case t.old == nil:
		return NetworkAdded{Status: t.next.status()}
	case t.next == nil:
		return NetworkRemoved{Status: t.old.status()}
	}
	old, next := t.old.status(), t.next.status()
	if equalStatus(old, next) {
		return nil
	}
	return NetworkChanged{Old: old, New: next}
}

func equalStatus(a, b Status) bool {
	return a.Network.Equal(b.Network) && a.Persistent == b.Persistent && a.Backend == b.Backend &&
		a.BridgeIndex == b.BridgeIndex && a.State == b.State && a.StateCode == b.StateCode && a.StateReason == b.StateReason && a.BoundZone == b.BoundZone
}

// summary returns a change in words; "" for one that is not worth a line, or has one
// as a change of State.
func (t transition) summary() string {
	switch {
	case t.old == nil:
		return "added a network"
	case t.next == nil:
		return "removed a network"
	case !t.old.net.Equal(t.next.net) || t.old.persistent != t.next.persistent:
		return "updated a network"
	case t.old.bridge.index == t.next.bridge.index, t.changedState():
		return ""
	case t.next.present():
		return "a network's bridge is there"
	}
	return "a network's bridge is gone"
}

// changedState reports whether a known network is in another State than before,
// or for another reason.
func (t transition) changedState() bool {
	if t.old == nil || t.next == nil {
		return false
	}
	oldState, oldCode, _ := stateOf(t.old.findings())
	state, code, _ := stateOf(t.next.findings())
	return state != oldState || code != oldCode
}
