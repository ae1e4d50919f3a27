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

// linkFollower brings networks in line with the host's links.
type linkFollower struct {
	hostLinks      Links
	networks       *networks
	view           *hostView
	changes        *transactions
	forwarding     *forwarder
	advertisements *advertiser
	lock           *changeLock
	workers        *workers
	probe          chan chan struct{} // follow closes what it receives
}

// follow follows the host's links until the context ends.
func (lf *linkFollower) follow(ctx context.Context) {
	links := lf.hostLinks.Changes()
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-lf.probe:
			close(answer)
		case c, ok := <-links:
			if !ok { // the monitor has ended, and says why in the log
				links = nil
				continue
			}
			changes := append([]watch.Change{c}, drain(links)...)
			lf.lock.during(ctx, func(ctx context.Context) { lf.relink(ctx, changes) })
		}
	}
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

// compareAgain compares everything after a failure, and tries again where that
// fails.
func (s *Service) compareAgain(ctx context.Context) (again time.Time) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if _, err := s.reapply(ctx, binding.Everything); err != nil {
		s.log.complain(ctx, slog.LevelError, "mending after a failure", err)
		return time.Now()
	}
	return again
}

// relink brings networks in line with bridges that came, went or were renamed:
// the dead ones' interface IDs leave the rules and the new ones' enter, in one
// transaction.
func (lf *linkFollower) relink(ctx context.Context, changes []watch.Change) {
	touched := map[string]bool{}
	for _, c := range changes {
		switch c.Kind {
		case watch.RoutesChanged:
			lf.routesChanged(ctx)
			lf.refreshUplinks(ctx)
			continue
		case watch.ForwardingOff:
			lf.workers.forwarding.trigger()
			continue
		case watch.Advertised:
			lf.advertisements.heard(c.New.Index)
			continue
		}
		if c.Kind != watch.Gone && lf.view.isDevice(c.New.Name) {
			lf.workers.forwarding.trigger()
		}
		for _, name := range []string{c.Old.Name, c.New.Name} {
			if network, ok := lf.networks.ConfiguredFor(name); ok {
				touched[network] = true
			}
		}
		for _, m := range lf.networks.ByIndex(c.Old.Index) {
			touched[m.net.Name] = true
		}
	}
	for _, name := range lf.view.byDevices(changes) {
		touched[name] = true
	}
	var ts []transition
	for name := range touched {
		if t, changed := lf.changes.relinked(name); changed {
			ts = append(ts, t)
		} else if m, err := lf.networks.known(name); err == nil {
			lf.advertisements.ignoreAgain(m)
		}
	}
	lf.changes.applyLinks(ctx, ts, "link")
}

// relinked looks at a network's bridge again.
func (tx *transactions) relinked(name string) (transition, bool) {
	m, err := tx.networks.known(name)
	if err != nil {
		return transition{}, false
	}
	b, err := tx.view.look(m.net.Bridge, m.bridge.index, tx.view.takenFrom(name))
	if err != nil {
		tx.log.Error("looking at a bridge that changed", "network", name, "error", err)
		tx.workers.comparison.trigger()
		return transition{}, false
	}
	next := *m
	next.bridge = b
	next.zone = next.zoneAfter(m)
	again := tx.view.withDevices(next.compiled())
	if b == m.bridge && again.sameDevices(m) {
		return transition{}, false
	}
	return transition{old: m, next: again}, true
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

// routesChanged tries anew where forwarding had to stay off: a default route
// that router advertisements brought may have gone. One that a guest's brought
// goes again, and a new uplink has to forward.
func (lf *linkFollower) routesChanged(ctx context.Context) {
	for _, r := range lf.hostLinks.DefaultRoutes() {
		if r.IPv6 && r.FromRA {
			lf.advertisements.heard(r.Index)
		}
	}
	lf.workers.forwarding.trigger()
	for _, m := range lf.networks.All() {
		if len(m.noted[fromForwarding]) > 0 {
			lf.forwarding.again(ctx, m)
		}
	}
}

// fillChecksums keeps checksum help on the bridges that serve DHCP.
func (s *Service) fillChecksums(ctx context.Context) (never time.Time) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if err := s.host.FillChecksums(ctx, s.dhcpBridges()); err != nil {
		s.log.complain(ctx, slog.LevelWarn, "DHCP replies may carry bad checksums", err)
	}
	return never
}
