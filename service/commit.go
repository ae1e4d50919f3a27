package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// transition is one network's way from what was to what shall be: old is nil
// for a new network, next for one that goes.
type transition struct {
	old, next *managed
	// zoneAsked says that the caller named a zone just now, so that a bridge
	// which cannot enter it fails the change.
	zoneAsked bool
}

func (t transition) name() string {
	if t.next != nil {
		return t.next.net.Name
	}
	return t.old.net.Name
}

// undoStack takes back what was done, last first.
type undoStack []func() error

func (u *undoStack) add(f func() error) { *u = append(*u, f) }

func (u undoStack) run() (err error) {
	for _, f := range slices.Backward(u) {
		err = errors.Join(err, f())
	}
	return err
}

// commit makes transitions real, all or none, in an order in which a crash at
// any point leads to the old state or the new one at the next start: a bridge
// leaves its zone while the files still say that it belongs there, since nobody
// would know of it later; then come the files, then the kernel in one
// transaction, then the zones that bridges enter. So a bridge is in a zone only
// while its rules hold, because the zones accept what only the rules keep apart.
//
// What takes a step back is noted before the step: it may be done though it
// fails, where its answer is lost. Taking back what was not done does nothing.
// The caller holds the lock.
func (s *Service) commit(ctx context.Context, ts []transition, files func() (func() error, error)) error {
	var undo undoStack
	err := s.commitSteps(ctx, ts, files, &undo)
	if err == nil {
		s.finish(ctx, ts)
		return nil
	}
	// The caller's time may be over, but taking back must not fail for that.
	if back := undo.run(); back != nil {
		s.Log.Error("taking back a failed change left something behind; reapply mends it", "error", back)
		s.kick()
	}
	return err
}

func (s *Service) commitSteps(ctx context.Context, ts []transition, files func() (func() error, error), undo *undoStack) error {
	for _, t := range ts {
		if err := s.leaveZone(ctx, t, undo); err != nil {
			return err
		}
	}
	if files != nil {
		back, err := files()
		if err != nil {
			return errorf(ApplyFailed, "storing the change: %w", err)
		}
		undo.add(back)
	}
	if err := s.changeRules(ctx, ts, undo); err != nil {
		return err
	}
	for _, t := range ts {
		if err := s.enterZone(ctx, t, undo); err != nil {
			return err
		}
	}
	return nil
}

// changeRules is the kernel's step.
func (s *Service) changeRules(ctx context.Context, ts []transition, undo *undoStack) error {
	change := changeOf(ts)
	if len(change.Set)+len(change.Remove) == 0 {
		return nil
	}
	if err := s.keepCounters(ctx, ts); err != nil {
		return errorf(ApplyFailed, "keeping the counters: %w", err)
	}
	undo.add(func() error { return s.active.Apply(context.WithoutCancel(ctx), changeOf(reversed(ts))) })
	if err := s.active.Apply(ctx, change); err != nil {
		return errorf(ApplyFailed, "changing the kernel's rules: %w", err)
	}
	return nil
}

// changeOf is the kernel's share of transitions.
func changeOf(ts []transition) Change {
	var c Change
	for _, t := range ts {
		switch {
		case t.next != nil && t.next.hasRules:
			c.Set = append(c.Set, t.next.member())
		case t.old != nil && t.old.hasRules:
			c.Remove = append(c.Remove, t.name())
		}
	}
	return c
}

func reversed(ts []transition) []transition {
	out := make([]transition, len(ts))
	for i, t := range ts {
		out[i] = transition{old: t.next, next: t.old}
	}
	return out
}

// publish makes transitions visible and tells of them.
func (s *Service) publish(ts []transition) {
	s.mu.Lock()
	var events []Event
	for _, t := range ts {
		if t.old != nil {
			delete(s.networks, t.old.net.Name)
			delete(s.bridges, t.old.net.Bridge)
		}
	}
	for _, t := range ts {
		if t.next != nil {
			s.networks[t.next.net.Name] = t.next
			s.bridges[t.next.net.Bridge] = t.next.net.Name
		}
		if e := eventOf(t); e != nil {
			events = append(events, e)
		}
	}
	s.mu.Unlock()
	for _, e := range events {
		s.Notify(e)
	}
}

func eventOf(t transition) Event {
	switch {
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
		a.BridgeIndex == b.BridgeIndex && a.State == b.State && a.StateReason == b.StateReason && a.BoundZone == b.BoundZone
}

// finish does what rests on the rules and cannot fail a call: forwarding is
// switched on, the change is told, and connections that began before their
// translation was there are forgotten soon after.
func (s *Service) finish(ctx context.Context, ts []transition) {
	var fresh []network.Network
	var gone []string
	for _, t := range ts {
		if t.next == nil {
			gone = append(gone, t.name())
			continue
		}
		t.next.forward = s.forwarding(ctx, t.next)
		if t.next.translates() && (t.old == nil || !slices.Equal(t.old.translated(), t.next.translated())) {
			fresh = append(fresh, t.next.net)
		}
	}
	s.publish(ts)
	if len(gone) > 0 {
		s.forgetCounters(gone...)
	}
	s.retranslate(fresh)
	poke(s.dhcp)
	poke(s.foreign)
}

// forwarding turns on what the network needs, once its bridge is there, and
// says why it could not; "" where all is well.
func (s *Service) forwarding(ctx context.Context, m *managed) (problem string) {
	v4, v6 := m.forwards()
	if !m.present() || (!v4 && !v6) {
		return ""
	}
	problem, err := s.Host.Forward(ctx, v4, v6)
	if err != nil {
		return fmt.Sprintf("switching forwarding on: %v; set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1 as needed, then reapply", err)
	}
	return problem
}

// forwardAgain tries anew for a network that is in force already.
func (s *Service) forwardAgain(ctx context.Context, m *managed) {
	if problem := s.forwarding(ctx, m); problem != m.forward {
		next := *m
		next.forward = problem
		s.publish([]transition{{old: m, next: &next}})
	}
}

// dhcpBridges are the bridges that DHCP replies leave by, with their networks.
func (s *Service) dhcpBridges() map[string]string {
	want := make(map[string]string)
	if s.backend().Name() == choice.IPTables {
		return want // libvirt's own rules fill them in
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, m := range s.networks {
		if m.present() && m.servesDHCPv4() {
			want[m.net.Bridge] = name
		}
	}
	return want
}

// kick asks the run loop for a full comparison.
func (s *Service) kick() { poke(s.wake) }

// poke leaves a note in a channel of one place.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
