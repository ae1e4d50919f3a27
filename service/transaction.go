package service

import (
	"context"
	"errors"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// transactions apply changes of networks to files, zones and kernel: every change
// goes through one of their methods.
type transactions struct {
	files          Files
	leavingRecords LeavingRecords
	binder         *binding.Binder
	networks       *networks
	leaving        *leaving
	view           *hostView
	rules          *rules
	counters       *counterKeeper
	forwarding     *forwarder
	advertisements *advertiser
	connections    *connections
	lock           *changeLock
	perNetwork     networkLocks
	log            logger
	workers        *workers
}

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
func (tx *transactions) change(ctx context.Context, name string, zoned func(*managed) bool, plan func(*binding.Session) (intent, error)) error {
	release, err := tx.perNetwork.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	before, _ := tx.networks.known(name)
	c := tx.binder.None()
	if zoned(before) {
		c = tx.binder.TryBegin(ctx)
	}
	defer c.End()
	var undo undoStack
	err = tx.changeSteps(ctx, c, plan, &undo)
	if err != nil {
		tx.takeBack(undo)
	}
	return err
}

func (tx *transactions) changeSteps(ctx context.Context, c *binding.Session, plan func(*binding.Session) (intent, error), undo *undoStack) error {
	var i intent
	err := tx.onceLeft(ctx, c, undo, func() (ts []transition, err error) {
		i, err = plan(c)
		return []transition{i.transition}, err
	}, func() error {
		i.transition = tx.withLeaving(c, i.transition)
		back, err := tx.commit(ctx, []transition{i.transition}, i.files)
		if err != nil {
			return err
		}
		uncertain := i.askedOf(c)
		tx.networks.Reserve(uncertain.change())
		tx.leaving.put(uncertain)
		if uncertain.next != nil {
			i.held = uncertain.next.zone
		}
		undo.add(func() error { return tx.revert(i.transition, back) })
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
	tx.settle(ctx, i, state)
	tx.postponeLeaving([]transition{i.transition})
	return nil
}

// onceLeft plans transitions and applies them under the change lock, once every
// bridge that leaves its zone for good has left it. For each that has yet to, the
// lock is let go, since firewalld is not spoken with under it, and all is planned
// again.
func (tx *transactions) onceLeft(ctx context.Context, c *binding.Session, undo *undoStack, plan func() ([]transition, error), apply func() error) error {
	for {
		leaving, err := tx.unlessLeaving(ctx, c, plan, apply)
		if err != nil || leaving == nil {
			return err
		}
		if err := c.Leave(ctx, leaving.zoning(), undo.add); err != nil {
			return zoneError(err)
		}
	}
}

// unlessLeaving plans, and applies unless a bridge has to leave its zone first.
func (tx *transactions) unlessLeaving(ctx context.Context, c *binding.Session, plan func() ([]transition, error), apply func() error) (leaving *transition, err error) {
	if err := tx.lock.acquire(ctx); err != nil {
		return nil, err
	}
	defer tx.lock.release()
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
func (tx *transactions) takeBack(undo undoStack) {
	if err := undo.run(); err != nil {
		tx.log.Error("taking back a failed change left something behind; reapply mends it", "error", err)
		tx.workers.comparison.trigger()
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
func (tx *transactions) settle(ctx context.Context, i intent, zone binding.State) {
	t := i.transition
	tx.lock.acquireAlways() // the change is made
	defer tx.lock.release()
	now, _ := tx.networks.known(t.name())
	if t.next != nil && (now == nil || now.net.Bridge != t.next.net.Bridge) {
		tx.binder.Postpone(t.next.iface(), "") // where it may just have been put
	} else if now != nil && t.next != nil && now.zone == i.held {
		next := *now
		next.zone = zone
		now = &next
	}
	tx.networks.Release(t.name())
	if t.next = now; t.next == nil && t.old == nil {
		return
	}
	tx.finish(ctx, []transition{t}, i.cause)
	if zone.Retry {
		tx.binder.Retry()
	}
}

// revert puts back what a held change replaced, unless a reload has meanwhile
// made the network something else again.
func (tx *transactions) revert(t transition, undo undoStack) error {
	tx.lock.acquireAlways()
	defer tx.lock.release()
	tx.networks.Release(t.name())
	now, err := tx.networks.known(t.name())
	if err != nil || !now.net.Equal(t.next.net) {
		tx.networks.publish([]transition{{old: t.old, next: now}})
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
	tx.networks.Put([]registry.Change[*managed]{back.change()}, nil)
	tx.leaving.put(back)
	tx.advertisements.ignore(context.Background(), []transition{{old: now, next: was}})
	if again, changed := tx.relinked(t.name()); changed {
		tx.applyLinks(context.Background(), []transition{again}, "link")
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
