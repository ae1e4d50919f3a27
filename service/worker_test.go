package service

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// rounds runs a worker, triggers it at some times and ends it after a minute. It
// returns when it worked, and when it did its last work at the end. Each round takes
// the time took.
func rounds(t *testing.T, w worker, took time.Duration, triggers ...time.Duration) (began []time.Duration, last time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w.signal = newSignal()
		work := w.work
		w.work = func(ctx context.Context) (again time.Time) {
			began = append(began, time.Since(start))
			time.Sleep(took)
			if work != nil {
				again = work(ctx)
			}
			return again
		}
		w.last = func() { last = time.Since(start) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, at := range triggers {
			time.AfterFunc(at, w.trigger)
		}
		w.run(ctx)
	})
	return began, last
}

func TestWorker(t *testing.T) {
	const s = time.Second
	left := 2
	twice := func(context.Context) (again time.Time) {
		if left--; left > 0 {
			again = time.Now().Add(5 * s)
		}
		return again
	}
	for _, test := range []struct {
		name     string
		worker   worker
		took     time.Duration
		triggers []time.Duration
		want     []time.Duration
	}{
		{"never triggered", worker{pause: s}, s, nil, nil},
		{"triggers gather, and one in the pause has a round of its own", worker{pause: 2 * s}, 0,
			[]time.Duration{1 * s, 2 * s, 2*s + 1, 10 * s}, []time.Duration{3 * s, 5 * s, 12 * s}},
		{"triggers during a round are one", worker{}, 3 * s, []time.Duration{1 * s, 2 * s, 3 * s}, []time.Duration{1 * s, 4 * s}},
		{"a round at once, then a rest", worker{rest: 4 * s}, 0, []time.Duration{1 * s, 2 * s, 20 * s}, []time.Duration{1 * s, 5 * s, 20 * s}},
		{"a share of the time", worker{pause: s, share: 5}, 2 * s, []time.Duration{1 * s, 3 * s, 30 * s}, []time.Duration{2 * s, 14 * s, 31 * s}},
		{"triggers itself", worker{pause: s, work: twice}, 0, []time.Duration{1 * s}, []time.Duration{2 * s, 8 * s}},
		{"ends in the pause", worker{pause: s}, 0, []time.Duration{60*s - 1}, nil},
		{"ends in the rest", worker{rest: 50 * s}, 0, []time.Duration{20 * s, 21 * s}, []time.Duration{20 * s}},
	} {
		t.Run(test.name, func(t *testing.T) {
			began, last := rounds(t, test.worker, test.took, test.triggers...)
			if !slices.Equal(began, test.want) {
				t.Errorf("worked at %v, want %v", began, test.want)
			}
			if last != time.Minute {
				t.Errorf("the last round was after %v", last)
			}
		})
	}
}

func TestWorkerFollowsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan struct{})
		worked := 0
		w := worker{events: events, work: func(context.Context) (never time.Time) { worked++; return never }}
		go w.run(t.Context())
		for range 3 {
			events <- struct{}{}
			synctest.Wait()
		}
		if worked != 3 {
			t.Errorf("worked %d times after 3 events", worked)
		}
	})
}
