package service

import (
	"context"
	"time"
)

// signal tells a loop that there is something to do. Those that are sent before
// it is received are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// trigger sends the signal. It never blocks, and may be called from any goroutine.
func (c signal) trigger() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// worker is a loop that does one kind of work whenever it is triggered. A trigger
// carries nothing: each round finds out itself what there is to do by then.
type worker struct {
	signal
	events <-chan struct{} // triggers it too; nil for none

	pause time.Duration // before each round: triggers gather
	rest  time.Duration // after each round, before the next
	share int           // rests so many times as long as a round took, where that is longer

	// work is one round. It returns when the worker is to trigger itself; the
	// zero time for never.
	work func(context.Context) (again time.Time)
	// last is called when the context has ended; nil for nothing.
	last func()
}

// run works until the context ends.
func (w *worker) run(ctx context.Context) {
	var again, rested time.Time
	for w.wait(ctx, again, rested) {
		begin := time.Now()
		again = w.work(ctx)
		rested = time.Now().Add(max(w.rest, time.Duration(w.share)*time.Since(begin)))
	}
	if w.last != nil {
		w.last()
	}
}

// wait waits until the next round may begin. It reports false once the context
// has ended.
func (w *worker) wait(ctx context.Context, again, rested time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-w.signal:
	case <-w.events:
	case <-alarm(again):
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(max(w.pause, time.Until(rested))):
		return true
	}
}

// alarm returns a channel that receives at a time; never at the zero time.
func alarm(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// drain takes what is there already, so that a burst is one change.
func drain[T any](c <-chan T) (out []T) {
	for {
		select {
		case v, ok := <-c:
			if !ok {
				return out
			}
			out = append(out, v)
		default:
			return out
		}
	}
}
