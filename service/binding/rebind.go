package binding

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// atOnce is how many bridges are bound before callers that wait for a session have
// one: to bind one of many interfaces took firewalld 0.1 s.
const atOnce = 8

// Scope is which bridges a comparison looks at.
type Scope int

// The scopes, from narrow to wide.
const (
	Retries    Scope = iota // those that a try may help
	Everything              // all
	AllAnew                 // all, and what other programs chose ends
)

// attempt is one bridge's way to where it belongs.
type attempt struct {
	from   State // as it was known when the attempt began
	bridge Bridge
	seen   string // the zone that the bridge is in; "" for none
	want   string // the zone that it belongs in; "" for none
	err    error  // why it does not get there
	have   zones.Installed
	asked  bool // firewalld may yet do what it was asked for, in silence
}

// Rebind compares bridges' zones with what firewalld has and mends the
// difference, without waiting for each answer before the next question. It
// returns the networks that needed it.
func (s *Session) Rebind(ctx context.Context, which Scope) (mended []string) {
	if !s.held || (s.err != nil && which == Retries) {
		return nil // it is tried again
	}
	bound, err := s.interfaces(ctx)
	var right, wrong []*attempt
	for _, b := range s.b.cfg.Networks.Bridges(nil) {
		if which == Retries && !b.State.Retry && !s.b.isPending(b.Iface) {
			continue
		}
		if a := begin(b, s.have, bound, err, which); a.want == a.seen || a.err != nil {
			right = append(right, a) // or nothing can be done
		} else {
			wrong = append(wrong, a)
		}
	}
	s.b.finish(ctx, right)
	s.b.queue(ctx, wrong)
	for part := range slices.Chunk(wrong, atOnce) {
		part = s.b.unchanged(part)
		s.mend(ctx, part)
		mended = append(mended, s.b.finish(ctx, part)...)
		s.yield(ctx)
	}
	s.b.log(slices.Concat(right, wrong))
	s.b.Retry() // where it did not succeed
	return mended
}

// begin finds out where a bridge is, and where it belongs; err is why it cannot be
// known where it is.
func begin(b Bridge, have zones.Installed, bound map[string]string, err error, which Scope) *attempt {
	a := &attempt{from: b.State, bridge: b, seen: bound[b.Iface], err: err, have: have}
	now := &a.bridge
	now.State.Moved = b.State.Moved && which != AllAnew
	if err != nil && !errors.Is(err, zones.ErrNotRunning) {
		a.seen = b.State.Bound
	}
	if err == nil {
		if now.State.Bound = a.seen; b.State.Unseen {
			if which == AllAnew {
				b.State.Last = nil
			}
			now.State = b.found(a.seen, have)
		}
		a.want, a.err = now.want(have)
	}
	if a.err != nil || (a.want == "" && !b.Governed()) {
		a.want = a.seen
	}
	return a
}

// queue publishes where the bridges are whose turn comes later: until then they are
// not where the last comparison left them. The first ones move at once, so that on
// a host with few networks no state changes for the blink of an eye.
func (b *Binder) queue(ctx context.Context, attempts []*attempt) {
	byNetwork := map[string]*attempt{}
	for _, a := range attempts[min(atOnce, len(attempts)):] {
		byNetwork[a.bridge.Network] = a
	}
	if len(byNetwork) == 0 {
		return
	}
	b.cfg.Networks.Update(ctx, slices.Collect(maps.Keys(byNetwork)), func(now Bridge) (State, bool) {
		a := byNetwork[now.Network]
		if !a.holds(now) || (now.State.Bound == a.seen && now.State.Problem.ID != "") {
			return now.State, false // or it is known to be outside its zone
		}
		a.from = a.bridge.kept(a.seen, errQueued{zone: a.want})
		return a.from, true
	})
}

// unchanged leaves out the bridges that a call has changed since they were looked
// at: that call saw to their zones.
func (b *Binder) unchanged(attempts []*attempt) []*attempt {
	names := make([]string, len(attempts))
	for i, a := range attempts {
		names[i] = a.bridge.Network
	}
	now := map[string]Bridge{}
	for _, bridge := range b.cfg.Networks.Bridges(names) {
		now[bridge.Network] = bridge
	}
	return slices.DeleteFunc(slices.Clone(attempts), func(a *attempt) bool { return !a.holds(now[a.bridge.Network]) })
}

// holds reports whether a network's bridge is what it was when the attempt began.
func (a *attempt) holds(now Bridge) bool {
	return now.Network == a.bridge.Network && now.Iface == a.bridge.Iface && now.State == a.from
}

// mend moves bridges to where they belong.
func (s *Session) mend(ctx context.Context, attempts []*attempt) {
	var bindings []zones.Binding
	var which []*attempt
	for _, a := range attempts {
		switch {
		case s.err != nil:
			a.err = s.err
		case a.want == "":
			a.err = s.move(ctx, a.bridge.Iface, "")
			a.asked = zones.IsSilence(a.err)
		default:
			bindings, which = append(bindings, zones.Binding{Interface: a.bridge.Iface, Zone: a.want}), append(which, a)
		}
	}
	if len(bindings) == 0 {
		return
	}
	for i, err := range s.b.cfg.Zones.BindAll(s.Patient(ctx), bindings) {
		which[i].err, which[i].asked = s.Note(err), zones.IsSilence(err)
	}
}

// state returns the state that the attempt leaves the bridge in.
func (a *attempt) state() State {
	if a.err == nil {
		return a.bridge.inside(a.want, a.have)
	}
	state := a.bridge.kept(a.seen, a.err)
	if a.asked {
		state.Unseen, state.Last = true, nil
	}
	return state
}

// finish notes where bridges are now, but for networks that others have changed
// since. It returns the networks whose bridge is in another zone than before.
func (b *Binder) finish(ctx context.Context, attempts []*attempt) (mended []string) {
	byNetwork := map[string]*attempt{}
	for _, a := range attempts {
		if !errors.Is(a.err, context.Canceled) { // else the service stops
			byNetwork[a.bridge.Network] = a
		}
	}
	if len(byNetwork) == 0 {
		return nil
	}
	b.cfg.Networks.Update(context.WithoutCancel(ctx), slices.Collect(maps.Keys(byNetwork)), func(now Bridge) (State, bool) {
		a := byNetwork[now.Network]
		if !a.holds(now) {
			return now.State, false
		}
		state := a.state()
		if state.Bound != a.seen {
			mended = append(mended, now.Network)
		}
		return state, true
	})
	return mended
}

// log writes down problems that are new, once for all networks that have one. That
// these are degraded by it has a line of its own.
func (b *Binder) log(attempts []*attempt) {
	news := slices.DeleteFunc(slices.Clone(attempts), func(a *attempt) bool {
		if errors.Is(a.err, context.Canceled) {
			return true // the service stops, and the next start tries again
		}
		state := a.state()
		return state.Problem.ID == "" || state.Problem == a.from.Problem // each event looks at it again
	})
	if len(news) == 0 {
		return
	}
	names := make([]string, len(news))
	for i, a := range news {
		names[i] = a.bridge.Network
	}
	slices.Sort(names)
	b.cfg.Log.Debug("bridges are not in their zones", "networks", names, "cause", news[0].err.Error())
}
