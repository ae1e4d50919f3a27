package service

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// A bridge that could not enter its zone is tried again after retryFirst, and
// from then on after twice as long each time, up to retryLast.
const (
	retryFirst = 500 * time.Millisecond
	retryLast  = time.Minute
)

// keepZones follows firewalld until the context ends: what it does by itself,
// bridges that could not enter their zones, and requests for a full comparison.
func (s *Service) keepZones(ctx context.Context, firewalld <-chan zones.Event) {
	var mend <-chan time.Time
	again := retry{s: s}
	defer again.stop()
	s.withFirewalld(ctx, func(ctx context.Context, c *conversation) { s.compareZones(ctx, c, everything) })
	for {
		again.arm(ctx)
		select {
		case <-ctx.Done():
			return
		case e, ok := <-firewalld:
			if !ok {
				firewalld = nil
				continue
			}
			if s.followFirewalld(ctx, append([]zones.Event{e}, drain(firewalld)...)) {
				again.reset()
			}
		case <-s.outside: // arm looks at it
		case <-again.due:
			again.stop()
			s.withFirewalld(ctx, s.tryAgain)
		case <-s.comparison:
			mend = time.After(mendPause)
		case <-mend:
			mend = nil
			s.mend(ctx)
		}
	}
}

// withFirewalld does one thing in a conversation. How long that may take is for
// firewalld's answers, each of which has its limit.
func (s *Service) withFirewalld(ctx context.Context, f func(context.Context, *conversation)) {
	c, err := s.insist(ctx)
	if err != nil {
		return // the service ends
	}
	defer c.end()
	f(ctx, c)
}

// retry is the next time that bridges outside their zones are tried.
type retry struct {
	s      *Service
	pause  time.Duration
	due    chan struct{} // closed when it is time; nil while nothing is to be tried
	cancel context.CancelFunc
}

// arm starts the pause before the next try, if there is anything to try.
func (r *retry) arm(ctx context.Context) {
	if r.due != nil {
		return
	}
	if !r.s.outsideZones() && !r.s.mute() {
		r.pause = 0
		return
	}
	r.pause = longer(r.pause)
	wait, cancel := context.WithTimeout(ctx, r.pause)
	due := make(chan struct{})
	r.due, r.cancel = due, cancel
	r.s.loops.Go(func() {
		defer close(due)
		// A firewalld that was stuck is tried as soon as it answers.
		if r.s.mute() && r.s.Firewalld.Answer(wait) == nil {
			return
		}
		<-wait.Done()
	})
}

// longer is the pause that follows one, 0 for none.
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
	r.due, r.cancel = nil, nil
}

// tryAgain does what firewalld did not do when it was asked.
func (s *Service) tryAgain(ctx context.Context, c *conversation) {
	owed := s.debts.all()
	s.rebind(ctx, c, retries)
	for iface, zone := range owed {
		if name, ok := s.registry.HolderOf(iface); ok {
			if m, err := s.known(name); err == nil && m.concernsZones() {
				s.settled(iface, c)
				continue
			}
		}
		if err := c.move(ctx, iface, zone); (err == nil || errors.Is(err, zones.ErrNotRunning)) && s.letGo(ctx, iface) {
			s.settled(iface, c)
		}
	}
}

// owe notes that a bridge has to go back into a zone, "" for none, once
// firewalld answers: it may yet do what the failed change asked for.
func (s *Service) owe(iface, zone string) {
	s.debts.owe(iface, zone)
	s.outside.trigger()
}

// settled forgets what was owed, unless firewalld fell silent again.
func (s *Service) settled(iface string, c *conversation) {
	if c.err != nil {
		return
	}
	s.debts.settle(iface)
}

// outsideZones reports whether trying again may bring any bridge into its zone.
func (s *Service) outsideZones() bool {
	if len(s.debts.all()) > 0 {
		return true
	}
	return slices.ContainsFunc(s.registry.All(), func(m *managed) bool { return m.zone.retry })
}

// followFirewalld looks at the zones after firewalld did something. anew says
// that firewalld has begun anew, or ended.
func (s *Service) followFirewalld(ctx context.Context, events []zones.Event) (anew bool) {
	if slices.ContainsFunc(events, func(e zones.Event) bool { return e.Kind != zones.BindingChanged }) {
		s.withFirewalld(ctx, s.zonesAnew)
		return true
	}
	if slices.ContainsFunc(events, s.surprises) {
		s.withFirewalld(ctx, func(ctx context.Context, c *conversation) {
			// A call of the service's own may just have come to its end.
			if slices.ContainsFunc(events, s.surprises) {
				s.acceptMoves(ctx, c)
			}
		})
	}
	return false
}

// surprises reports whether an interface's new zone is news: most often it is the
// answer to a call of the service's own.
func (s *Service) surprises(e zones.Event) bool {
	if e.Interface == "" {
		return true
	}
	name, ok := s.registry.HolderOf(e.Interface)
	if !ok {
		return false
	}
	m, err := s.known(name)
	return err == nil && m.zone.bound != e.Zone
}

// zonesAnew is compareZones where what other programs chose has ended.
func (s *Service) zonesAnew(ctx context.Context, c *conversation) { s.compareZones(ctx, c, allAnew) }

// compareZones compares all bridges with firewalld and refreshes what the
// service says of it. firewalld before 2.0 flushes iptables' chains when it
// reloads, so checksum help is looked at too.
func (s *Service) compareZones(ctx context.Context, c *conversation, which scope) {
	// firewalld takes its name before it flushes, and answers only after: rules
	// that are put back before the first answer may be gone with it.
	s.refreshHost(ctx, c)
	s.refill(ctx)
	s.rebind(ctx, c, which)
	s.workers.checksums.trigger()
	s.workers.libvirt.trigger()
}

// refill puts iptables rules back: firewalld flushes the tables when it starts
// and reloads, and tells of it, so that it is no opponent. A table of the
// service's own is nobody else's to flush.
func (s *Service) refill(ctx context.Context) {
	if s.backend().Name() != choice.IPTables {
		return
	}
	s.withLock(ctx, func(ctx context.Context) {
		s.answer(ctx, opponent{Program: "firewalld"}, "firewalld had flushed its rules")
		for name, f := range s.repairs.fights {
			s.repairs.fights[name] = f.explained()
		}
	})
}

// endMoves ends what other programs chose, by a service that cannot speak with
// firewalld now.
func (s *Service) endMoves(ctx context.Context) {
	s.withLock(ctx, func(context.Context) {
		var ts []transition
		for _, m := range s.registry.All() {
			if m.zone.moved || m.zone.last != nil {
				next := *m
				next.zone.moved, next.zone.last, next.zone.retry = false, nil, true
				ts = append(ts, transition{old: m, next: &next})
			}
		}
		s.publish(ts)
	})
	s.outside.trigger()
}

// acceptMoves notes that somebody put bridges elsewhere with firewall-cmd: that
// is respected until the next comparison.
func (s *Service) acceptMoves(ctx context.Context, c *conversation) {
	bound, err := c.interfaces(ctx)
	if err != nil {
		s.complain(ctx, slog.LevelWarn, "asking firewalld which interfaces its zones have", err)
		return
	}
	s.withLock(ctx, func(context.Context) {
		for _, m := range s.registry.All() {
			s.edit(m.net.Name, func(m *managed) *managed {
				if zone := bound[m.iface()]; zone != m.zone.bound && m.zone.last == nil { // else it is looked at anyway
					return s.acceptMove(m, zone, c.have)
				}
				return m
			})
		}
	})
}

func (s *Service) acceptMove(m *managed, zone string, have zones.Installed) *managed {
	next := *m
	next.zone.moved = false
	want, err := next.zoneIn(have)
	if (m.zone.retry || s.debts.has(m.iface())) && (err != nil || want != zone) {
		next.zone.bound = zone // the late effect of a call of the service's own, perhaps
		return &next
	}
	next.zone = next.inside(zone, have)
	if next.zone.moved = m.concernsZones() && (err != nil || want != zone); next.zone.moved {
		s.Log.Info("somebody moved a bridge to another zone, which stays until the next reload", "network", m.net.Name, "bridge", m.iface(), "zone", zone)
	}
	return &next
}

// refreshHost looks at firewalld anew for the properties of the service. Of one
// that does not answer no more is known than that it is there.
func (s *Service) refreshHost(ctx context.Context, c *conversation) {
	if c.err != nil {
		s.complain(ctx, slog.LevelWarn, "asking firewalld for its zones", c.err)
		s.changeHost(func(h *Host) { h.FirewalldRunning = true })
		return
	}
	backend := ""
	if c.have.Running {
		var err error
		if backend, err = s.Firewalld.Backend(c.patient(ctx)); c.note(err) != nil {
			s.complain(ctx, slog.LevelWarn, "asking firewalld for its backend", err)
		}
	}
	s.changeHost(func(h *Host) {
		h.FirewalldRunning, h.FirewalldBackend = c.have.Running, backend
		h.InstalledZones = c.have.Ours()
	})
}
