package service

import (
	"context"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/zones"
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

// run follows the host until the context ends: links, firewalld, and requests
// for a full comparison.
func (s *Service) run(ctx context.Context, firewalld <-chan zones.Event) {
	links := s.Links.Changes()
	var mend <-chan time.Time
	s.withLock(ctx, s.zonesAnew)
	for {
		select {
		case <-ctx.Done():
			return
		case c, ok := <-links:
			if !ok {
				links = nil
				continue
			}
			changes := append([]watch.Change{c}, drain(links)...)
			s.withLock(ctx, func(ctx context.Context) { s.relink(ctx, changes) })
		case e, ok := <-firewalld:
			if !ok {
				firewalld = nil
				continue
			}
			events := append([]zones.Event{e}, drain(firewalld)...)
			s.withLock(ctx, func(ctx context.Context) { s.followFirewalld(ctx, events) })
		case <-s.wake:
			mend = time.After(mendPause)
		case <-mend:
			mend = nil
			s.mend(ctx)
		}
	}
}

// withLock does one thing under the lock and with a time of its own.
func (s *Service) withLock(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if s.lock(ctx) != nil {
		s.kick()
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

// mend compares everything, and asks for another try where that fails.
func (s *Service) mend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if _, err := s.Reapply(ctx); err != nil {
		s.Log.Error("mending after a failure", "error", err)
		s.kick()
	}
}

// relink brings networks in line with bridges that came, went or were renamed:
// the dead ones' interface IDs leave the rules and the new ones' enter, in one
// transaction.
func (s *Service) relink(ctx context.Context, changes []watch.Change) {
	touched := map[string]bool{}
	for _, c := range changes {
		if c.Kind == watch.RoutesChanged {
			s.routesChanged(ctx)
			continue
		}
		for _, name := range []string{c.Old.Name, c.New.Name} {
			if network, ok := s.NetworkByBridge(name); ok {
				touched[network] = true
			}
		}
		for _, m := range s.byIndex(c.Old.Index) {
			touched[m.net.Name] = true
		}
	}
	var ts []transition
	for name := range touched {
		if t, changed := s.relinked(name); changed {
			ts = append(ts, t)
		}
	}
	s.applyLinks(ctx, ts)
}

// byIndex are the networks whose bridge has an index, under whatever name.
func (s *Service) byIndex(index int) (out []*managed) {
	if index == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.networks {
		if m.bridge.index == index {
			out = append(out, m)
		}
	}
	return out
}

// relinked looks at a network's bridge again.
func (s *Service) relinked(name string) (transition, bool) {
	m, err := s.known(name)
	if err != nil {
		return transition{}, false
	}
	b, err := s.look(m.net.Bridge, m.bridge.index)
	if err != nil {
		s.Log.Error("looking at a bridge that changed", "network", name, "error", err)
		s.kick()
		return transition{}, false
	}
	if b == m.bridge {
		return transition{}, false
	}
	next := *m
	next.bridge = b
	return transition{old: m, next: next.compiled()}, true
}

func (s *Service) applyLinks(ctx context.Context, ts []transition) {
	if len(ts) == 0 {
		return
	}
	if c := changeOf(ts); len(c.Set)+len(c.Remove) > 0 {
		if err := s.keepCounters(ctx, ts); err != nil {
			s.Log.Warn("counters may go back with a bridge that gives way to something else", "error", err)
		}
		if err := s.active.Apply(ctx, c); err != nil {
			s.Log.Error("following changed bridges in the rules", "error", err)
			s.kick()
			return
		}
	}
	s.finish(ctx, ts)
}

// routesChanged tries anew where forwarding had to stay off: a default route
// that router advertisements brought may have gone.
func (s *Service) routesChanged(ctx context.Context) {
	for _, m := range s.all() {
		if m.forward != "" {
			s.forwardAgain(ctx, m)
		}
	}
}

// followFirewalld looks at the zones after firewalld did something.
func (s *Service) followFirewalld(ctx context.Context, events []zones.Event) {
	moved := false
	for _, e := range events {
		if e.Kind != zones.BindingChanged {
			s.zonesAnew(ctx)
			return
		}
		moved = moved || s.surprises(e)
	}
	if moved {
		s.acceptMoves(ctx)
	}
}

// surprises says whether an interface's new zone is news: most often it is the
// answer to a call of the service's own.
func (s *Service) surprises(e zones.Event) bool {
	if e.Interface == "" {
		return true
	}
	name, ok := s.NetworkByBridge(e.Interface)
	if !ok {
		return false
	}
	m, err := s.known(name)
	return err == nil && m.zone.bound != e.Zone
}

// zonesAnew compares all bridges with firewalld and refreshes what the service
// says of it. firewalld before 2.0 flushes iptables' chains when it reloads,
// so checksum help is looked at too.
func (s *Service) zonesAnew(ctx context.Context) {
	// firewalld takes its name before it flushes, and answers only after: rules
	// that are put back before the first answer may be gone with it.
	s.refreshHost(ctx)
	s.refill(ctx)
	s.rebindAll(ctx)
	poke(s.dhcp)
	poke(s.foreign)
}

// refill puts iptables rules back: firewalld flushes the tables when it starts
// and reloads. A table of the service's own is nobody else's to flush.
func (s *Service) refill(ctx context.Context) {
	if s.active.Name() != choice.IPTables {
		return
	}
	damaged, err := s.active.Sync(ctx, s.members())
	if err != nil {
		s.Log.Error("putting the rules back after firewalld", "error", err)
		s.kick()
		return
	}
	mended := make(map[string]string, len(damaged))
	for _, name := range damaged {
		mended[name] = "firewalld had flushed its rules"
	}
	s.afterRepair(ctx, mended)
}

// acceptMoves notes that somebody put bridges elsewhere with firewall-cmd: that
// is respected until the next comparison.
func (s *Service) acceptMoves(ctx context.Context) {
	bound, err := s.Zones.Interfaces(ctx)
	if err != nil {
		s.Log.Warn("asking firewalld which interfaces its zones have", "error", err)
		return
	}
	for _, m := range s.all() {
		if zone := bound[m.net.Bridge]; zone != m.zone.bound {
			next := *m
			next.zone.bound = zone
			s.publish([]transition{{old: m, next: &next}})
		}
	}
}

// helpDHCP keeps checksum help on the bridges that serve DHCP.
func (s *Service) helpDHCP(ctx context.Context) {
	pause := dhcpPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dhcp:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		begin := time.Now()
		one, cancel := context.WithTimeout(ctx, eventTimeout)
		if err := s.Host.FillChecksums(one, s.dhcpBridges()); err != nil && ctx.Err() == nil {
			s.Log.Warn("DHCP replies may carry bad checksums", "error", err)
		}
		cancel()
		pause = max(dhcpPause, dhcpShare*time.Since(begin))
	}
}
