package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// rebindAtOnce is how many bridges are bound before others who wait to speak
// with firewalld have a turn: one of many interfaces took it 0.1 s.
const rebindAtOnce = 8

// place is where a network's bridge is and where it belongs.
type place struct {
	m          *managed
	was        zoneState // what is known of it, as it is looked at
	seen, want string    // zones; "" for none
	err        error     // why it does not get there
	have       zones.Installed
	asked      bool // firewalld may yet do what it was asked for, in silence
}

// scope is which bridges a comparison looks at.
type scope int

const (
	retries    scope = iota // those that a try may help
	everything              // all
	allAnew                 // all, and what other programs chose ends
)

// rebind compares bridges' zones with what firewalld has and mends the
// difference, without waiting for each answer before the next question. It
// returns the networks that needed it.
func (s *Service) rebind(ctx context.Context, c *conversation, which scope) (mended []string) {
	if !c.held || (c.err != nil && which == retries) {
		return nil // it is tried again
	}
	bound, err := c.interfaces(ctx)
	var right, wrong []*place
	for _, m := range s.registry.All() {
		if which == retries && !m.zone.retry && !s.debts.has(m.iface()) {
			continue
		}
		if p := m.placeIn(c.have, bound, err, which); p.want == p.seen || p.err != nil {
			right = append(right, p) // or nothing can be done
		} else {
			wrong = append(wrong, p)
		}
	}
	s.rebound(ctx, right)
	for part := range slices.Chunk(wrong, rebindAtOnce) {
		part = slices.DeleteFunc(slices.Clone(part), s.changedSince)
		c.mend(ctx, part)
		mended = append(mended, s.rebound(ctx, part)...)
		c.pass(ctx)
	}
	s.complainOfZones(slices.Concat(right, wrong))
	s.outside.trigger() // where it did not succeed
	return mended
}

// placeIn is where a network's bridge is, and where it belongs; err is why
// nobody can say where it is.
func (m *managed) placeIn(have zones.Installed, bound map[string]string, err error, which scope) *place {
	p := &place{m: m, was: m.zone, seen: bound[m.iface()], err: err, have: have}
	p.was.moved = m.zone.moved && which != allAnew
	if err != nil && !errors.Is(err, zones.ErrNotRunning) {
		p.seen = m.zone.bound
	}
	if err == nil {
		if p.was.bound = p.seen; m.zone.unseen {
			before := *m
			if which == allAnew {
				before.zone.last = nil
			}
			p.was = before.found(p.seen, have)
		}
		now := *m
		now.zone = p.was
		p.want, p.err = now.zoneIn(have)
	}
	if p.err != nil || (p.want == "" && !m.concernsZones()) {
		p.want = p.seen
	}
	return p
}

// changedSince reports whether a call has changed a network since it was looked
// at: that call saw to its zone.
func (s *Service) changedSince(p *place) bool {
	now, err := s.known(p.m.net.Name)
	return err != nil || now.iface() != p.m.iface() || now.zone != p.m.zone
}

// mend moves bridges to where they belong.
func (c *conversation) mend(ctx context.Context, places []*place) {
	var bindings []zones.Binding
	var which []*place
	for _, p := range places {
		switch {
		case c.err != nil:
			p.err = c.err
		case p.want == "":
			p.err = c.move(ctx, p.m.iface(), "")
			p.asked = zones.IsSilence(p.err)
		default:
			bindings, which = append(bindings, zones.Binding{Interface: p.m.iface(), Zone: p.want}), append(which, p)
		}
	}
	if len(bindings) == 0 {
		return
	}
	for i, err := range c.s.Zones.BindAll(c.patient(ctx), bindings) {
		which[i].err, which[i].asked = c.note(err), zones.IsSilence(err)
	}
}

// pass gives the turn to those who wait for one, and takes the next.
func (c *conversation) pass(ctx context.Context) {
	<-c.s.zoning
	select {
	case c.s.zoning <- struct{}{}:
	case <-ctx.Done():
		c.held, c.err = false, fmt.Errorf("waiting to speak with firewalld again: %w", ctx.Err())
	}
}

// state is what the network says of where its bridge is.
func (p *place) state() zoneState {
	m := *p.m
	m.zone = p.was
	if p.err == nil {
		return m.inside(p.want, p.have)
	}
	state := m.outside(p.seen, p.err)
	if p.asked {
		state.unseen, state.last = true, nil
	}
	return state
}

// rebound notes where bridges are now, but for networks that others have
// changed since.
func (s *Service) rebound(ctx context.Context, places []*place) (mended []string) {
	if len(places) == 0 {
		return nil
	}
	s.withLock(context.WithoutCancel(ctx), func(context.Context) {
		var ts []transition
		for _, p := range places {
			if s.changedSince(p) || errors.Is(p.err, context.Canceled) { // the service stops
				continue
			}
			now, _ := s.known(p.m.net.Name)
			next := *now
			next.zone = p.state()
			if next.zone.bound != p.seen {
				mended = append(mended, p.m.net.Name)
			}
			ts = append(ts, transition{old: now, next: &next})
		}
		s.publish(ts)
	})
	return mended
}
