package service

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
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
	known          ruleset.Host       // as the rules know it
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
	lf.followHost(ctx)
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

// routesChanged tries again where forwarding had to stay off: a default route
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

// refreshUplinks looks which networks' bridges have a default route by now.
func (lf *linkFollower) refreshUplinks(context.Context) {
	for _, m := range lf.networks.All() {
		lf.networks.edit(m.net.Name, func(m *managed) *managed {
			next := *m
			if next.bridge.uplink = m.bridge.index != 0 && lf.view.isUplink(m.bridge.index); next.bridge == m.bridge {
				return m
			}
			return &next
		})
	}
}
