package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const (
	// eventTimeout bounds what one event of the host may cost.
	eventTimeout = 30 * time.Second
	// dhcpPause is how long changes of bridges gather before checksum help
	// follows them: each round runs a process, and they come in bursts.
	dhcpPause = 50 * time.Millisecond
	// dhcpShare keeps checksum help for many bridges, where iptables writes
	// them all anew, to one part in so many of the time: it holds the kernel's
	// lock on nftables, which the networks' own changes wait for.
	dhcpShare = 10
	// mendPause is how long a full comparison waits after a failure.
	mendPause = 2 * time.Second
)

// run follows the host's links until the context ends.
func (s *Service) run(ctx context.Context) {
	links := s.Links.Changes()
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-s.probe:
			close(answer)
		case c, ok := <-links:
			if !ok { // the monitor has ended, and says why in the log
				links = nil
				continue
			}
			changes := append([]watch.Change{c}, drain(links)...)
			s.withLock(ctx, func(ctx context.Context) { s.relink(ctx, changes) })
		}
	}
}

// withLock does one thing under the lock and with a time of its own.
func (s *Service) withLock(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if s.lock(ctx) != nil {
		s.workers.comparison.trigger()
		return
	}
	defer s.unlock()
	f(ctx)
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

// comparisonWorker compares everything after a failure, and tries again where that
// fails.
func (s *Service) comparisonWorker() *worker {
	return &worker{signal: newSignal(), pause: mendPause, work: func(ctx context.Context) (again time.Time) {
		ctx, cancel := context.WithTimeout(ctx, eventTimeout)
		defer cancel()
		if _, err := s.reapply(ctx, binding.Everything); err != nil {
			s.complain(ctx, slog.LevelError, "mending after a failure", err)
			return time.Now()
		}
		return again
	}}
}

// relink brings networks in line with bridges that came, went or were renamed:
// the dead ones' interface IDs leave the rules and the new ones' enter, in one
// transaction.
func (s *Service) relink(ctx context.Context, changes []watch.Change) {
	touched := map[string]bool{}
	for _, c := range changes {
		switch c.Kind {
		case watch.RoutesChanged:
			s.routesChanged(ctx)
			s.refreshUplinks(ctx)
			continue
		case watch.ForwardingOff:
			s.workers.forwarding.trigger()
			continue
		case watch.Advertised:
			s.heard(c.New.Index)
			continue
		}
		if c.Kind != watch.Gone && s.isDevice(c.New.Name) {
			s.workers.forwarding.trigger()
		}
		for _, name := range []string{c.Old.Name, c.New.Name} {
			if network, ok := s.registry.ConfiguredFor(name); ok {
				touched[network] = true
			}
		}
		for _, m := range s.registry.ByIndex(c.Old.Index) {
			touched[m.net.Name] = true
		}
	}
	for _, name := range s.byDevices(changes) {
		touched[name] = true
	}
	var ts []transition
	for name := range touched {
		if t, changed := s.relinked(name); changed {
			ts = append(ts, t)
		} else if m, err := s.known(name); err == nil {
			s.ignoreAgain(m)
		}
	}
	s.applyLinks(ctx, ts, "link")
}

// relinked looks at a network's bridge again.
func (s *Service) relinked(name string) (transition, bool) {
	m, err := s.known(name)
	if err != nil {
		return transition{}, false
	}
	b, err := s.look(m.net.Bridge, m.bridge.index, s.takenFrom(name))
	if err != nil {
		s.Log.Error("looking at a bridge that changed", "network", name, "error", err)
		s.workers.comparison.trigger()
		return transition{}, false
	}
	next := *m
	next.bridge = b
	next.zone = next.zoneAfter(m)
	again := s.withDevices(next.compiled())
	if b == m.bridge && again.sameDevices(m) {
		return transition{}, false
	}
	return transition{old: m, next: again}, true
}

func (s *Service) applyLinks(ctx context.Context, ts []transition, cause string) {
	if len(ts) == 0 {
		return
	}
	s.rememberLinks(ts)
	if c := changeOf(ts); len(c.Set)+len(c.Remove) > 0 {
		if err := s.keepCounters(ctx, ts); err != nil {
			s.complain(ctx, slog.LevelWarn, "counters may go back with a bridge that gives way to something else", err)
		}
		if err := s.active.Apply(ctx, c); err != nil {
			s.complain(ctx, slog.LevelError, "following changed bridges in the rules", err)
			s.workers.comparison.trigger()
			return
		}
	}
	s.finish(ctx, ts, cause)
}

// routesChanged tries anew where forwarding had to stay off: a default route
// that router advertisements brought may have gone. One that a guest's brought
// goes again, and a new uplink has to forward.
func (s *Service) routesChanged(ctx context.Context) {
	for _, r := range s.Links.DefaultRoutes() {
		if r.IPv6 && r.FromRA {
			s.heard(r.Index)
		}
	}
	s.workers.forwarding.trigger()
	for _, m := range s.registry.All() {
		if len(m.noted[fromForwarding]) > 0 {
			s.forwardAgain(ctx, m)
		}
	}
}

// checksumWorker keeps checksum help on the bridges that serve DHCP.
func (s *Service) checksumWorker() *worker {
	return &worker{signal: newSignal(), pause: dhcpPause, share: dhcpShare, work: func(ctx context.Context) (never time.Time) {
		ctx, cancel := context.WithTimeout(ctx, eventTimeout)
		defer cancel()
		if err := s.Host.FillChecksums(ctx, s.dhcpBridges()); err != nil {
			s.complain(ctx, slog.LevelWarn, "DHCP replies may carry bad checksums", err)
		}
		return never
	}}
}
