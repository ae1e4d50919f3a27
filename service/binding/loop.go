package binding

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// A bridge that could not enter its zone is tried again after retryFirst, and
// from then on after twice as long each time, up to retryLast.
const (
	retryFirst = 500 * time.Millisecond
	retryLast  = time.Minute
)

// Run follows firewalld until the context ends. compare is called in a session where
// everything is to be compared: at the begin, and when firewalld has started,
// ended or reloaded, which ends what other programs chose.
func (b *Binder) Run(ctx context.Context, events <-chan zones.Event, compare func(context.Context, *Session, Scope)) {
	again := retry{b: b}
	defer again.stop()
	b.inSession(ctx, func(s *Session) { compare(ctx, s, Everything) })
	for {
		again.arm(ctx)
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			all := append([]zones.Event{e}, waiting(events)...)
			if slices.ContainsFunc(all, func(e zones.Event) bool { return e.Kind != zones.BindingChanged }) {
				b.inSession(ctx, func(s *Session) { compare(ctx, s, AllAnew) })
				again.reset()
			} else {
				b.follow(ctx, all)
			}
		case <-b.outside: // arm looks at it
		case <-again.due:
			again.stop()
			b.inSession(ctx, func(s *Session) { b.tryAgain(ctx, s) })
		}
	}
}

// waiting returns the events that are there already, so that a burst is one.
func waiting(events <-chan zones.Event) (out []zones.Event) {
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return out
			}
			out = append(out, e)
		default:
			return out
		}
	}
}

// inSession does one thing in a session. How long that may take is for
// firewalld's answers, each of which has its limit.
func (b *Binder) inSession(ctx context.Context, do func(*Session)) {
	s, err := b.Begin(ctx)
	if err != nil {
		return // the service ends
	}
	defer s.End()
	do(s)
}

// tryAgain does what firewalld did not do when it was asked.
func (b *Binder) tryAgain(ctx context.Context, s *Session) {
	postponed := b.Pending()
	s.Rebind(ctx, Retries)
	governed := map[string]bool{}
	for _, bridge := range b.cfg.Networks.Bridges(nil) {
		governed[bridge.Iface] = governed[bridge.Iface] || bridge.Governed()
	}
	for iface, zone := range postponed {
		if governed[iface] {
			b.done(iface, s)
		} else if err := s.move(ctx, iface, zone); (err == nil || errors.Is(err, zones.ErrNotRunning)) && b.cfg.Networks.Released(ctx, iface) {
			b.done(iface, s)
		}
	}
}

// follow looks at the zones after firewalld has said that interfaces are in others.
func (b *Binder) follow(ctx context.Context, events []zones.Event) {
	if !b.surprising(events) {
		return
	}
	b.inSession(ctx, func(s *Session) {
		// A call of the service's own may just have come to its end.
		if b.surprising(events) {
			b.acceptMoves(ctx, s)
		}
	})
}

// surprising reports whether an interface's new zone is news: most often it is
// what the service itself has asked for.
func (b *Binder) surprising(events []zones.Event) bool {
	now := map[string]string{} // the last zone by interface
	for _, e := range events {
		now[e.Interface] = e.Zone
	}
	if _, unnamed := now[""]; unnamed {
		return true
	}
	return slices.ContainsFunc(b.cfg.Networks.Bridges(nil), func(bridge Bridge) bool {
		zone, told := now[bridge.Iface]
		return told && zone != bridge.State.Bound
	})
}

// acceptMoves notes that another program put bridges elsewhere: that
// is respected until the next comparison.
func (b *Binder) acceptMoves(ctx context.Context, s *Session) {
	bound, err := s.interfaces(ctx)
	if err != nil {
		if ctx.Err() == nil {
			b.cfg.Log.Warn("asking firewalld which interfaces its zones have", "error", err)
		}
		return
	}
	b.cfg.Networks.Update(ctx, nil, func(now Bridge) (State, bool) {
		zone := bound[now.Iface]
		if zone == now.State.Bound || now.State.Last != nil { // that is looked at anyway
			return now.State, false
		}
		return b.acceptMove(now, zone, s.have), true
	})
}

func (b *Binder) acceptMove(bridge Bridge, zone string, have zones.Installed) State {
	pending := bridge.State.Retry || b.isPending(bridge.Iface)
	bridge.State.Moved = false
	want, err := bridge.want(have)
	if pending && (err != nil || want != zone) {
		bridge.State.Bound = zone // the late effect of a call of the service's own, perhaps
		return bridge.State
	}
	state := bridge.inside(zone, have)
	if state.Moved = bridge.Governed() && (err != nil || want != zone); state.Moved {
		b.cfg.Log.Info("somebody moved a bridge to another zone, which stays until the next reload", "network", bridge.Network, "bridge", bridge.Iface, "zone", zone)
	}
	return state
}

// EndMoves ends what other programs chose where there is no session to compare
// everything in.
func (b *Binder) EndMoves(ctx context.Context) {
	b.cfg.Networks.Update(ctx, nil, func(now Bridge) (State, bool) {
		if !now.State.Moved && now.State.Last == nil {
			return now.State, false
		}
		next := now.State.Unmoved()
		next.Retry = true
		return next, true
	})
	b.Retry()
}

// retry is the next time that bridges outside their zones are tried.
type retry struct {
	b       *Binder
	pause   time.Duration
	due     chan struct{} // closed when it is time; nil while nothing is to be tried
	cancel  context.CancelFunc
	waiting sync.WaitGroup
}

// arm starts the pause before the next try, if there is anything to try.
func (r *retry) arm(ctx context.Context) {
	if r.due != nil {
		return
	}
	if !r.b.anyOutside() && !r.b.unresponsive() {
		r.pause = 0
		return
	}
	r.pause = longer(r.pause)
	wait, cancel := context.WithTimeout(ctx, r.pause)
	due := make(chan struct{})
	r.due, r.cancel = due, cancel
	r.waiting.Go(func() {
		defer close(due)
		// A firewalld that was stuck is tried as soon as it answers.
		if r.b.unresponsive() && r.b.cfg.Zones.Answer(wait) == nil {
			return
		}
		<-wait.Done()
	})
}

// anyOutside reports whether trying again may bring any bridge into its zone.
func (b *Binder) anyOutside() bool {
	return len(b.Pending()) > 0 ||
		slices.ContainsFunc(b.cfg.Networks.Bridges(nil), func(bridge Bridge) bool { return bridge.State.Retry })
}

// longer returns the pause that follows one, 0 for none.
func longer(pause time.Duration) time.Duration { return min(max(retryFirst, 2*pause), retryLast) }

// reset begins with short pauses again: what firewalld is has changed.
func (r *retry) reset() {
	r.stop()
	r.pause = 0
}

func (r *retry) stop() {
	if r.cancel != nil {
		r.cancel()
	}
	r.waiting.Wait()
	r.due, r.cancel = nil, nil
}
