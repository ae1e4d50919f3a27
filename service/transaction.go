package service

import (
	"context"
	"errors"
	"log/slog"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
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
// it would not be known later; then come the files, then the kernel in one
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
// it is, nil for none: a call that firewalld has no part in does not wait for it.
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

// undoStack takes back what was done, last first.
type undoStack []func() error

func (u *undoStack) add(f func() error) { *u = append(*u, f) }

func (u undoStack) run() (err error) {
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i]())
	}
	return err
}

// commit makes transitions real in the files and then in the kernel, all or
// none; back undoes it. The caller holds the lock.
func (tx *transactions) commit(ctx context.Context, ts []transition, files func() (func() error, error)) (back undoStack, err error) {
	if err = tx.commitSteps(ctx, ts, files, &back); err == nil {
		return back, nil
	}
	tx.takeBack(back)
	return nil, err
}

func (tx *transactions) commitSteps(ctx context.Context, ts []transition, files func() (func() error, error), undo *undoStack) error {
	if files != nil {
		back, err := files()
		if err != nil {
			return errorf(ApplyFailed, "storing the change: %w", err)
		}
		undo.add(back)
	}
	if err := tx.recordLeaving(ts, undo); err != nil {
		return err
	}
	return tx.changeRules(ctx, ts, undo)
}

// changeRules is the kernel's step.
func (tx *transactions) changeRules(ctx context.Context, ts []transition, undo *undoStack) error {
	change := changeOf(ts)
	if len(change.Set)+len(change.Remove) == 0 {
		return nil
	}
	if err := tx.counters.keep(ctx, ts); err != nil {
		return errorf(ApplyFailed, "keeping the counters: %w", err)
	}
	undo.add(func() error {
		tx.rememberLinks(reversed(ts))
		return tx.rules.backend().Apply(context.WithoutCancel(ctx), changeOf(reversed(ts)))
	})
	tx.rememberLinks(ts)
	if err := tx.rules.backend().Apply(ctx, change); err != nil {
		return errorf(ApplyFailed, "changing the kernel's rules: %w", err)
	}
	return nil
}

func (tx *transactions) applyLinks(ctx context.Context, ts []transition, cause string) {
	if len(ts) == 0 {
		return
	}
	tx.rememberLinks(ts)
	if c := changeOf(ts); len(c.Set)+len(c.Remove) > 0 {
		if err := tx.counters.keep(ctx, ts); err != nil {
			tx.log.complain(ctx, slog.LevelWarn, "counters may go back with a bridge that gives way to something else", err)
		}
		if err := tx.rules.backend().Apply(ctx, c); err != nil {
			tx.log.complain(ctx, slog.LevelError, "following changed bridges in the rules", err)
			tx.workers.comparison.trigger()
			return
		}
	}
	tx.finish(ctx, ts, cause)
}
