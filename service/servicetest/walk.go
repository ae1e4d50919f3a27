package servicetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FailEachStep makes each step of an operation fail in turn, checks that nothing
// changed, and returns the steps. With after, a failing step is done all the same.
// fresh returns a world of NewBase for each try that needs one.
func FailEachStep(t *testing.T, op Operation, after bool, fresh func(testing.TB) *World) (steps []string) {
	w := prepared(t, op, fresh)
	var failed []string
	for at := 1; ; at++ {
		before := w.State()
		w.Events()
		w.Faults.Arm(at, after)
		err := op.Do(w.Faults.Mark(context.Background()), w)
		steps = w.Faults.Disarm()
		if len(steps) < at {
			if err != nil {
				t.Fatalf("without a failure: %v", err)
			}
			if len(failed) == 0 {
				t.Errorf("no step of %q can fail the call", steps)
			}
			w.Stop()
			return steps
		}
		when := fmt.Sprintf("%s, step %d, failed", steps[at-1], at)
		if err == nil {
			// A failure to enter a zone that the network does not name fails no call.
			w.wantRepaired(when)
			w.Stop()
			w = prepared(t, op, fresh)
			continue
		}
		failed = append(failed, steps[at-1])
		w.wantUnchanged(when, before, err)
	}
}

func prepared(t testing.TB, op Operation, fresh func(testing.TB) *World) *World {
	w := fresh(t)
	if op.Prepare != nil {
		op.Prepare(w)
	}
	return w
}

// wantUnchanged checks that a failed call changed nothing.
func (w *World) wantUnchanged(when string, before State, err error) {
	w.T.Helper()
	if !errors.Is(err, ErrInjected) {
		w.T.Errorf("%s: %v", when, err)
	}
	if diff := cmp.Diff(before, w.State()); diff != "" {
		w.T.Fatalf("%s and changed something (-before +after):\n%s", when, diff)
	}
	if events := w.Events(); len(events) > 0 {
		w.T.Errorf("%s and told %+v", when, events)
	}
	if n, err := w.Service.Reapply(context.Background()); n != 0 || err != nil {
		w.T.Errorf("%s and left %d networks to repair, %v", when, n, err)
	}
}

// wantRepaired checks that one comparison repairs everything.
func (w *World) wantRepaired(when string) {
	w.T.Helper()
	for range 2 {
		n, err := w.Service.Reapply(context.Background())
		if err != nil {
			w.T.Errorf("%s, then reapplied: %v", when, err)
		}
		if n == 0 {
			return
		}
	}
	w.T.Errorf("%s: a second comparison still finds something", when)
}

// readOnly are steps that change nothing: being killed there is being killed
// before the next change.
var readOnly = []string{"Query", "Installed", "Interfaces", "Read", "Counters"}

// KillAtEachStep kills the service at each step of an operation in turn, so that
// nothing is undone, and checks that the next start leads to the old state or the
// new one.
func KillAtEachStep(t *testing.T, op Operation, fresh func(testing.TB) *World) {
	run := func(at int) (restarted State, steps []string) {
		w := prepared(t, op, fresh)
		w.Faults.ArmKill(at)
		err := op.Do(w.Faults.Mark(context.Background()), w)
		w.Kill()
		if steps = w.Faults.Disarm(); err != nil && len(steps) < at {
			t.Fatal(err)
		}
		w.Start()
		defer w.Stop()
		w.Compare()
		if n, err := w.Service.Reapply(context.Background()); n != 0 || err != nil {
			t.Errorf("killed at step %d: a start left %d networks to repair, %v", at, n, err)
		}
		restarted = w.State()
		// Counters of a network that a Replace was about to end may continue.
		restarted.Rules = slices.DeleteFunc(restarted.Rules, func(l string) bool {
			return strings.HasPrefix(l, "packets ") || strings.HasPrefix(l, "counter ")
		})
		return restarted, steps
	}
	const never = 1000
	// The first step fails, so nothing is done; but a start reads files that were
	// changed by hand before a reload as well.
	before, _ := run(1)
	done, steps := run(never)
	for at, step := range steps {
		if at == 0 || slices.Contains(readOnly, step) {
			continue
		}
		got, _ := run(at + 1)
		if !cmp.Equal(got, before) && !cmp.Equal(got, done) {
			t.Errorf("killed at step %d of %q, neither the old state nor the new one (-new +got):\n%s\n(-old +got):\n%s",
				at+1, steps, cmp.Diff(done, got), cmp.Diff(before, got))
		}
	}
}
