package binding

import (
	"context"
	"errors"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// HasToLeave reports whether the bridge of a change has to be taken out of a zone
// that it leaves for good.
func (s *Session) HasToLeave(c Change) bool { return c.leaves() && !s.left[c.Old.Iface] }

// Leave takes the bridge of a change out of a zone that it leaves for good. With a
// firewalld that does not answer it does not fail: the bridge is stuck then. What
// takes the step back is given to undo before it is taken.
func (s *Session) Leave(ctx context.Context, c Change, undo func(func() error)) error {
	iface, zone := c.Old.Iface, c.Old.State.Bound
	err := s.err
	if err == nil && c.Old.State.Unseen {
		var bound map[string]string
		bound, err = s.interfaces(ctx)
		zone = bound[iface]
	}
	if err == nil {
		undo(func() error { return s.moveBack(ctx, iface, zone) })
		err = s.move(ctx, iface, "")
	}
	s.stuck[iface] = IsSilence(err)
	if err != nil && !s.stuck[iface] && !errors.Is(err, zones.ErrNotRunning) {
		return fmt.Errorf("taking %s out of zone %s: %w", iface, zone, err)
	}
	s.left[iface] = true
	return nil
}

// GetsStuck reports whether the bridge of a change leaves its zone and is in it
// until firewalld answers.
func (s *Session) GetsStuck(c Change) bool { return c.leaves() && s.stuck[c.Old.Iface] }

// Asks reports whether the zone of the bridge of a change is not known until
// firewalld, which Enter asks, has answered.
func (s *Session) Asks(c Change) bool { return s.err == nil && c.Next.Governed() }

// Enter puts a network's bridge into the zone that it should be in, and returns
// the state that it is in then. With a zone that the caller asked for by name a
// failure is an error; otherwise the rules hold all the same, and the state says
// what is wrong. What takes the step back is given to undo before it is taken.
func (s *Session) Enter(ctx context.Context, c Change, undo func(func() error)) (State, error) {
	b := *c.Next
	if b.Stray || (s.err != nil && c.keeps()) {
		return b.State, nil
	}
	before, err := s.before(ctx, c)
	zone := ""
	if err == nil && b.State.Unseen {
		b.State = b.found(before, s.have)
	}
	if err == nil {
		zone, err = b.want(s.have)
	}
	if err == nil && zone == "" && !b.Governed() {
		zone = before
	}
	if err == nil && zone != before { // and so s.err is nil
		refused := false
		undo(func() error {
			if refused && before == "" {
				return nil // firewalld itself says that it did nothing
			}
			return s.moveBack(ctx, b.Iface, before)
		})
		err = s.move(ctx, b.Iface, zone)
		refused = zones.IsRefusal(err)
	}
	switch {
	case err != nil && c.Asked && zone == "":
		return b.State, fmt.Errorf("finding a zone for %s: %w", b.Iface, err)
	case err != nil && c.Asked:
		return b.State, fmt.Errorf("binding %s to zone %s: %w", b.Iface, zone, err)
	case err != nil:
		a := &attempt{from: b.State, bridge: b, seen: before, err: err, asked: zones.IsSilence(err) || s.b.isPending(b.Iface)}
		s.b.log([]*attempt{a})
		return a.state(), nil
	}
	return b.inside(zone, s.have), nil
}

// before returns the zone that the bridge of a change is in. Of one that is new to
// the service it matters only where the change can fail and has to put it back:
// firewalld is slow to ask.
func (s *Session) before(ctx context.Context, c Change) (string, error) {
	if s.err != nil {
		if !c.Next.Governed() {
			return c.Next.State.Bound, nil
		}
		return c.Next.State.Bound, s.err
	}
	if c.Old != nil && c.Old.Name == c.Next.Name {
		switch {
		case c.leaves():
			return "", nil
		case c.Old.State.Unseen:
			bound, err := s.interfaces(ctx)
			return bound[c.Next.Iface], err
		}
		return c.Old.State.Bound, nil
	}
	if !c.Asked {
		return "", nil
	}
	bound, err := s.interfaces(ctx)
	return bound[c.Next.Iface], err
}
