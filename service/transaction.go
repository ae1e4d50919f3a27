package service

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// intent is what a call is about to change.
type intent struct {
	transition
	// files stores it; nil for nothing to store.
	files func() (undo func() error, err error)
	cause string // the method that was called, for the log
	// held is the zone state that others see until the change is settled.
	held binding.State
}

// change makes what a call intends real, all or none, in an order in which a
// crash at any point leads to the old state or the new one at the next start: a
// bridge leaves its zone while the files still say that it belongs there, since
// nobody would know of it later; then come the files, then the kernel in one
// transaction, then the zone that the bridge enters. So a bridge is in a zone
// only while its rules hold, because the zones accept what only the rules keep
// apart.
//
// The lock is not held while firewalld is spoken with, so that it keeps no other
// call waiting. In the meantime the network is what it will be, and its signals
// are held back until that is certain.
//
// What takes a step back is noted before the step: it may be done though it
// fails, where its answer is lost. Taking back what was not done does nothing.
//
// zoned reports whether firewalld may have a part in the change of the network as
// it is, nil for none: who has no business with it does not wait for it.
func (s *Service) change(ctx context.Context, name string, zoned func(*managed) bool, plan func(*binding.Session) (intent, error)) error {
	pass, err := s.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer pass()
	before, _ := s.known(name)
	c := s.binder.None()
	if zoned(before) {
		c = s.binder.TryBegin(ctx)
	}
	defer c.End()
	var undo undoStack
	err = s.changeSteps(ctx, c, plan, &undo)
	if err != nil {
		s.takeBack(undo)
	}
	return err
}

func (s *Service) changeSteps(ctx context.Context, c *binding.Session, plan func(*binding.Session) (intent, error), undo *undoStack) error {
	var i intent
	err := s.onceLeft(ctx, c, undo, func() (ts []transition, err error) {
		i, err = plan(c)
		return []transition{i.transition}, err
	}, func() error {
		i.transition = s.withLeaving(c, i.transition)
		back, err := s.commit(ctx, []transition{i.transition}, i.files)
		if err != nil {
			return err
		}
		uncertain := i.askedOf(c)
		s.registry.Reserve(uncertain.change())
		s.leaving.put(uncertain)
		if uncertain.next != nil {
			i.held = uncertain.next.zone
		}
		undo.add(func() error { return s.revert(i.transition, back) })
		return nil
	})
	if err != nil {
		return err
	}
	state := binding.State{}
	if i.next != nil {
		if state, err = c.Enter(ctx, i.zoning(), undo.add); err != nil {
			return zoneError(err)
		}
	}
	s.settle(ctx, i, state)
	s.postponeLeaving([]transition{i.transition})
	return nil
}

// onceLeft plans transitions and applies them under the change lock, once every
// bridge that leaves its zone for good has left it. For each that has yet to, the
// lock is let go, since firewalld is not spoken with under it, and all is planned
// again.
func (s *Service) onceLeft(ctx context.Context, c *binding.Session, undo *undoStack, plan func() ([]transition, error), apply func() error) error {
	for {
		leaving, err := s.unlessLeaving(ctx, c, plan, apply)
		if err != nil || leaving == nil {
			return err
		}
		if err := c.Leave(ctx, leaving.zoning(), undo.add); err != nil {
			return zoneError(err)
		}
	}
}

// unlessLeaving plans, and applies unless a bridge has to leave its zone first.
func (s *Service) unlessLeaving(ctx context.Context, c *binding.Session, plan func() ([]transition, error), apply func() error) (leaving *transition, err error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	ts, err := plan()
	if err != nil {
		return nil, err
	}
	for _, t := range ts {
		if c.HasToLeave(t.zoning()) {
			return &t, nil
		}
	}
	return nil, apply()
}

// takeBack runs what undoes a failed change. The caller's time may be over, but
// taking back must not fail for that.
func (s *Service) takeBack(undo undoStack) {
	if err := undo.run(); err != nil {
		s.Log.Error("taking back a failed change left something behind; reapply mends it", "error", err)
		s.workers.comparison.trigger()
	}
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

// settle ends a change that succeeded: links may have changed since it was
// held, and so may the zone where firewalld was not spoken with. A reload may
// even have taken the network out, or back in.
func (s *Service) settle(ctx context.Context, i intent, zone binding.State) {
	t := i.transition
	s.changing <- struct{}{} // not to be given up: the change is made
	defer s.unlock()
	now, _ := s.known(t.name())
	if t.next != nil && (now == nil || now.net.Bridge != t.next.net.Bridge) {
		s.binder.Postpone(t.next.iface(), "") // where it may just have been put
	} else if now != nil && t.next != nil && now.zone == i.held {
		next := *now
		next.zone = zone
		now = &next
	}
	s.registry.Release(t.name())
	if t.next = now; t.next == nil && t.old == nil {
		return
	}
	s.finish(ctx, []transition{t}, i.cause)
	if zone.Retry {
		s.binder.Retry()
	}
}

// revert puts back what a held change replaced, unless a reload has meanwhile
// made the network something else again.
func (s *Service) revert(t transition, undo undoStack) error {
	s.changing <- struct{}{}
	defer s.unlock()
	s.registry.Release(t.name())
	now, err := s.known(t.name())
	if err != nil || !now.net.Equal(t.next.net) {
		s.publish([]transition{{old: t.old, next: now}})
		return nil
	}
	err = undo.run()
	was := t.old
	if was != nil && was.backend != now.backend { // all have moved to another one
		moved := *was
		moved.backend = now.backend
		was = &moved
	}
	back := transition{old: now, next: was, stays: t.displaces, displaces: t.stays}
	s.registry.Put([]registry.Change[*managed]{back.change()}, nil)
	s.leaving.put(back)
	s.ignoreGuests(context.Background(), []transition{{old: now, next: was}})
	if again, changed := s.relinked(t.name()); changed {
		s.applyLinks(context.Background(), []transition{again}, "link")
	}
	return err
}

// undoStack takes back what was done, last first.
type undoStack []func() error

func (u *undoStack) add(f func() error) { *u = append(*u, f) }

func (u undoStack) run() (err error) {
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i]())
	}
	return err
}

// turns lets one call at a time change a network.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// take waits for the turn at a network; pass gives it on.
func (t *turns) take(ctx context.Context, network string) (pass func(), err error) {
	for {
		t.mu.Lock()
		before, taken := t.busy[network]
		if !taken {
			done := make(chan struct{})
			if t.busy == nil {
				t.busy = map[string]chan struct{}{}
			}
			t.busy[network] = done
			t.mu.Unlock()
			return func() { t.pass(network, done) }, nil
		}
		t.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another change of network %q to end: %w", network, ctx.Err())
		}
	}
}

func (t *turns) pass(network string, done chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, network)
	close(done)
}
