package binding

import (
	"errors"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// State is what a network wants of firewalld and what it has.
type State struct {
	ByHand *string // set by BindInterface ("" = unbound by hand); nil: as the mode calls for
	Bound  string
	Unseen bool   // the zone that the bridge is in is not known yet
	Life   string // the run of firewalld that has it there
	// Last is what an earlier run of the service recorded, as long as Unseen.
	Last    *store.ZoneRecord
	Moved   bool            // another program put the bridge there, which is respected
	Problem finding.Finding // why the bridge is not in the zone that it should be in
	Retry   bool            // trying again may help
}

// Unmoved returns the state without what other programs chose.
func (s State) Unmoved() State {
	s.Moved, s.Last = false, nil
	return s
}

// Governed reports whether the bridge's zone is the service's business. That of
// an open network is not, as with libvirt, unless one is named: its bridge
// stays where the administrator put it.
func (b *Bridge) Governed() bool {
	return b != nil && (b.Mode != network.ModeOpen || b.Zone != "" || b.State.ByHand != nil)
}

// want returns the zone that the bridge belongs in, "" for none, as firewalld is.
func (b *Bridge) want(have zones.Installed) (string, error) {
	zone := b.Zone
	switch {
	case b.State.Moved && have.Running:
		return b.State.Bound, nil
	case b.State.ByHand != nil && *b.State.ByHand == "":
		return "", nil
	case b.State.ByHand != nil:
		zone = *b.State.ByHand
	}
	return zones.Choose(zone, string(b.Mode), have)
}

// with returns the bridge in another state.
func (b Bridge) with(s State) Bridge {
	b.State = s
	return b
}

// inside returns the state of the bridge in a zone, as firewalld is.
func (b *Bridge) inside(zone string, have zones.Installed) State {
	return State{ByHand: b.State.ByHand, Moved: b.State.Moved, Bound: zone, Life: have.Life}
}

// kept returns the state of the bridge where it could not enter its zone and is
// in another, or "" for none. A host without firewalld is no problem, unless the
// network names a zone.
func (b *Bridge) kept(zone string, err error) State {
	state := b.State
	state.Bound = zone
	if errors.Is(err, zones.ErrNotRunning) {
		state = State{ByHand: b.State.ByHand}
		if b.Zone == "" {
			return state
		}
	}
	if !b.Governed() {
		return state // where it is, is not known, and does not matter
	}
	state.Problem, state.Retry = b.problem(err), !untilFirewalldChanges(err)
	return state
}

// untilFirewalldChanges reports whether only firewalld's own next step, which its
// signals announce, can mend an error.
func untilFirewalldChanges(err error) bool {
	var (
		missing  zones.ErrZoneMissing
		notFound zones.ErrZoneNotFound
	)
	return errors.Is(err, zones.ErrNotRunning) || errors.As(err, &missing) || errors.As(err, &notFound)
}

// Recall returns the state of a network that an earlier run governed. Another
// bridge or zone in the network's file ends what was chosen by hand before.
func (b Bridge) Recall(last *store.ZoneRecord) State {
	state := State{Unseen: true}
	if last == nil || (!last.Lost && (last.Bridge != b.Name || last.Asked != b.Zone)) {
		return state
	}
	state.ByHand = last.ByHand
	if last.Lost || (last.Mode == string(b.Mode) && last.Iface == b.Iface) {
		state.Last = last
	}
	return state
}

// found returns the state of a bridge that is found in a zone, "" for none, by a
// service that does not know yet which program put it there.
func (b Bridge) found(zone string, have zones.Installed) State {
	last := b.State.Last
	b.State = State{ByHand: b.State.ByHand, Bound: zone, Life: have.Life}
	want, err := b.want(have)
	b.State.Moved = have.Running && b.Governed() && (err != nil || want != zone) && movedByHand(last, zone, have)
	return b.State
}

// movedByHand reports whether another program, and not the service itself, put
// a bridge into the zone in which it is found. One that is in none is put back,
// since a reload of firewalld looks the same, unless it was taken out before.
func movedByHand(last *store.ZoneRecord, zone string, have zones.Installed) bool {
	switch {
	case last == nil || last.Unsure:
		return false
	case last.Lost:
		return zone != "" && !slices.Contains(have.Ours(), zone)
	case zone == "":
		return last.Moved && last.Zone == "" && last.Firewalld == have.Life
	}
	return last.Moved || zone != last.Zone
}

// leaves reports whether a bridge is in a zone that is no longer the service's
// business after the change.
func (c Change) leaves() bool {
	if c.Stays || !c.Old.Governed() || (c.Old.State.Bound == "" && !c.Old.State.Unseen) {
		return false
	}
	return !c.Next.Governed() || c.Next.Name != c.Old.Name
}

// keeps reports whether a change has nothing to do with the zone that the
// network's bridge is in.
func (c Change) keeps() bool {
	return c.Old != nil && c.Old.Name == c.Next.Name && c.Old.Mode == c.Next.Mode &&
		c.Old.Zone == c.Next.Zone && c.Old.State == c.Next.State && !c.Asked
}
