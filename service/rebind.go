package service

import (
	"context"
	"errors"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// rebind compares bridges' zones with what firewalld has and mends the
// difference, without waiting for each answer before the next question. It
// looks at all networks, and ends what others chose with firewall-cmd, or at
// those alone that a try may help. It returns the networks that needed it.
func (s *Service) rebind(ctx context.Context, c *conversation, all bool) (mended []string) {
	if !c.held || (c.err != nil && !all) {
		return nil // it is tried again
	}
	bound, err := c.interfaces(ctx)
	r := rebinding{}
	for _, m := range s.all() {
		if all || m.zone.retry || s.owes(m.net.Bridge) {
			r.compare(m, c.have, bound, err)
		}
	}
	r.mend(ctx, c)
	s.withLock(ctx, func(context.Context) { mended = s.rebound(r) })
	s.complainOfZones(r.failed())
	return mended
}

// rebinding is what a comparison of many networks with firewalld found.
type rebinding struct {
	networks []*managed
	seen     []string // the zone that firewalld has the bridge in
	want     []string
	errs     []error
}

// compare notes where a network's bridge is and where it belongs.
func (r *rebinding) compare(m *managed, have zones.Installed, bound map[string]string, err error) {
	fresh := *m
	fresh.zone.moved = false
	seen := bound[m.net.Bridge]
	if err != nil && !errors.Is(err, zones.ErrNotRunning) {
		seen = m.zone.bound // nobody says otherwise
	}
	want := seen
	if err == nil {
		want, err = fresh.zoneIn(have)
	}
	if err != nil || (want == "" && !m.concernsZones()) {
		want = seen
	}
	r.networks, r.seen = append(r.networks, m), append(r.seen, seen)
	r.want, r.errs = append(r.want, want), append(r.errs, err)
}

// mend moves the bridges that are not where they belong.
func (r *rebinding) mend(ctx context.Context, c *conversation) {
	var bindings []zones.Binding
	var which []int
	for i, m := range r.networks {
		switch {
		case r.errs[i] != nil || r.want[i] == r.seen[i]:
		case r.want[i] == "":
			r.errs[i] = c.move(ctx, m.net.Bridge, "")
		default:
			bindings = append(bindings, zones.Binding{Interface: m.net.Bridge, Zone: r.want[i]})
			which = append(which, i)
		}
	}
	if len(bindings) == 0 {
		return
	}
	for j, err := range c.s.Zones.BindAll(ctx, bindings) {
		r.errs[which[j]] = c.note(err)
	}
}

// state is what came of it for one network.
func (r *rebinding) state(i int) zoneState {
	m := *r.networks[i]
	m.zone.moved = false
	if r.errs[i] != nil {
		return m.outside(r.seen[i], r.errs[i])
	}
	return m.inside(r.want[i])
}

// failed are the networks that are not where they belong, with one reason.
func (r *rebinding) failed() (networks []*managed, states []zoneState, err error) {
	for i, m := range r.networks {
		if r.errs[i] != nil {
			networks, states, err = append(networks, m), append(states, r.state(i)), r.errs[i]
		}
	}
	return networks, states, err
}

// rebound notes what came of a comparison, but for networks that others have
// changed since. The caller holds the lock.
func (s *Service) rebound(r rebinding) (mended []string) {
	for i, m := range r.networks {
		now, err := s.known(m.net.Name)
		if err != nil || now.net.Bridge != m.net.Bridge || now.zone != m.zone {
			continue
		}
		next := *now
		next.zone = r.state(i)
		if next.zone.bound != r.seen[i] {
			mended = append(mended, m.net.Name)
		}
		s.publish([]transition{{old: now, next: &next}})
	}
	return mended
}
