package service

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const (
	// repairRetry is the pause after a repair that failed, which may be no more
	// than another program's change in the middle of it. Each further one is
	// twice as long, up to fightLongest.
	repairRetry = 100 * time.Millisecond
	// repairComplain is how many failures in a row are worth a line of the log.
	repairComplain = 3
)

// repairs are what is known of the rules between comparisons. The change lock guards
// them.
type repairs struct {
	fights  fights
	missing map[string]bool // networks whose rules are known not to be in force
	failed  error           // why the last comparison failed
	tries   int             // that failed in a row
}

// rules are the kernel's rules: the backend that holds them, and what is known of
// them between comparisons. All but backend needs the change lock.
type rules struct {
	backends Backends
	table    Table
	chains   Chains
	lock     *changeLock
	log      logger
	workers  *workers

	networks    *networks
	leaving     *leaving
	view        *hostView
	counters    *counterKeeper
	connections *connections
	binder      *binding.Binder

	mu      sync.RWMutex    // guards active; held for moments only
	active  backend.Backend // changed under the change lock too
	repairs repairs
	moving  signal // says that another backend may hold the rules
}

// answer compares the rules after another program may have changed them, and
// puts them back unless there is a fight with that program and its pause lasts. again
// is when it wants to be called next, the zero time for never. The caller holds the
// change lock.
func (rs *rules) answer(ctx context.Context, by opponent, cause string) (again time.Time) {
	defer func() { rs.noteFindings() }()
	r := &rs.repairs
	if r.fights == nil {
		r.fights = fights{}
	}
	if _, fighting := r.fights.next(); fighting {
		damaged, err := rs.active.Verify(ctx)
		if err != nil {
			return rs.failedRepair(ctx, err, cause)
		}
		r.inForceBut(damaged)
		if due := r.fights.due(damaged); len(damaged) == 0 || time.Now().Before(due) {
			return r.rest(due, damaged)
		}
	}
	damaged, err := rs.repair(ctx, cause)
	if err != nil {
		return rs.failedRepair(ctx, err, cause)
	}
	r.inForceBut(nil)
	r.fights.repaired(time.Now(), by, damaged...)
	return r.rest(time.Time{}, nil)
}

// rest forgets the fights that are over and returns when something is to be
// looked at again.
func (r *repairs) rest(due time.Time, damaged []string) time.Time {
	r.fights.end(time.Now(), damaged)
	over, fighting := r.fights.next()
	switch {
	case len(damaged) > 0:
		return due
	case fighting:
		return over
	}
	return time.Time{}
}

// inForceBut notes a comparison that succeeded.
func (r *repairs) inForceBut(damaged []string) {
	r.failed, r.tries = nil, 0
	r.missing = make(map[string]bool, len(damaged))
	for _, name := range damaged {
		r.missing[name] = true
	}
}

// whole reports whether all rules were in force at the last comparison.
func (r *repairs) whole() bool { return r.failed == nil && len(r.missing) == 0 }

// lastTouches adds touches to others and leaves the last one of each program.
func lastTouches(old, added []watch.Touch) []watch.Touch {
	for _, t := range added {
		same := func(known watch.Touch) bool { return known.Program == t.Program }
		old = append(slices.DeleteFunc(old, same), t)
	}
	return old
}

// opponentOf is the program that touched the rules last, of those that are known.
func opponentOf(touches []watch.Touch) (by opponent) {
	for _, t := range touches {
		if t.Program != "" {
			by = opponent{t.Program, t.PID}
		}
	}
	return by
}

// repair puts rules back that are not as they should be, and reports it.
func (rs *rules) repair(ctx context.Context, cause string) (damaged []string, err error) {
	if damaged, err = rs.sync(ctx); err != nil || len(damaged) == 0 {
		return nil, err
	}
	mended := make(map[string]string, len(damaged))
	for _, name := range rs.networks.governed(damaged) {
		mended[name] = cause
	}
	rs.afterRepair(ctx, mended)
	return damaged, nil
}

// failedRepair notes that rules could not be compared or put back, and which of
// them are missing where that much can be seen.
func (rs *rules) failedRepair(ctx context.Context, failure error, cause string) (again time.Time) {
	r := &rs.repairs
	if ctx.Err() != nil {
		return time.Now().Add(repairRetry)
	}
	tries := r.tries + 1
	if damaged, err := rs.active.Verify(ctx); err == nil {
		r.inForceBut(damaged)
	}
	r.failed, r.tries = failure, tries
	if tries == repairComplain {
		rs.log.complain(ctx, slog.LevelError, "putting rules back", failure, "cause", cause)
	}
	return time.Now().Add(min(repairRetry<<min(tries-1, 10), fightLongest))
}

// inForce notes that all rules were compared and are in force now, by whatever
// cause. The caller holds the change lock.
func (rs *rules) inForce() {
	rs.repairs.inForceBut(nil)
	rs.noteFindings()
}

// syncTo brings what a backend holds to the rules of all networks, and returns the
// networks whose rules were others. It is the one place where that is done.
func (rs *rules) syncTo(ctx context.Context, b backend.Backend) (damaged []string, err error) {
	return b.Sync(ctx, rs.members())
}

// sync brings the kernel's rules to those of all networks, and has their
// State say so where that fails. The caller holds the change lock.
func (rs *rules) sync(ctx context.Context) (damaged []string, err error) {
	damaged, err = rs.syncTo(ctx, rs.active)
	if ctx.Err() == nil {
		rs.noteForeign(err)
	}
	return damaged, err
}
