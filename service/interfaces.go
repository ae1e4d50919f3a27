package service

import (
	"context"
	"reflect"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// loopback has the same index in every network namespace (LOOPBACK_IFINDEX).
const loopback = 1

// HostInterfaces returns what the rules are to know of the host's interfaces. A bridge
// is no bystander, whoever has it: while nobody looks it may get the name of a
// network's. Ports are left out too, since packets pass what they are ports of.
func HostInterfaces(host interface {
	Links() []watch.Link
	DefaultRoutes() []watch.Route
}) ruleset.Host {
	var out ruleset.Host
	for _, l := range host.Links() {
		if !l.Bridge && l.Master == 0 && l.Index != loopback {
			out.Bystanders = append(out.Bystanders, ruleset.Interface{Index: l.Index, Name: l.Name})
		}
	}
	if routes := host.DefaultRoutes(); len(routes) > 0 { // IPv4's come first
		out.Uplink = routes[0].Index
	}
	return out
}

// followHost has the rules know the host's interfaces where those have changed. No
// verdict depends on it.
func (lf *linkFollower) followHost(ctx context.Context) {
	now := HostInterfaces(lf.hostLinks)
	if reflect.DeepEqual(now, lf.known) {
		return
	}
	lf.known = now
	lf.changes.refresh(ctx)
	lf.workers.foreign.trigger()
}

// refresh has the rules look at the host's interfaces again. Where they cannot be
// changed, the comparison that follows finds out and says why.
func (tx *transactions) refresh(ctx context.Context) {
	if err := tx.rules.backend().Apply(ctx, backend.Change{}); err != nil {
		tx.workers.comparison.trigger()
	}
}
