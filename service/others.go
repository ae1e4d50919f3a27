package service

import (
	"context"
	"log/slog"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// loopback has the same index in every network namespace (LOOPBACK_IFINDEX).
const loopback = 1

// OtherInterfaces returns the interfaces that no network can have and that forwarded
// packets may pass. A bridge is none of them, whoever has it: while nobody looks it
// may get the name of a network's. Ports are left out too, since packets pass what
// they are ports of.
func OtherInterfaces(links []watch.Link) []ruleset.Interface {
	var out []ruleset.Interface
	for _, l := range links {
		if !l.Bridge && l.Master == 0 && l.Index != loopback {
			out = append(out, ruleset.Interface{Index: l.Index, Name: l.Name})
		}
	}
	return out
}

// followOthers has the rules know which interfaces no network can have, where those
// have changed. Verdicts do not depend on it.
func (lf *linkFollower) followOthers(ctx context.Context) {
	now := OtherInterfaces(lf.hostLinks.Links())
	if slices.Equal(now, lf.others) {
		return
	}
	lf.changes.refresh(ctx)
	lf.others = now
}

// refresh has the rules look at the host again.
func (tx *transactions) refresh(ctx context.Context) {
	if err := tx.rules.backend().Apply(ctx, backend.Change{}); err != nil {
		tx.log.complain(ctx, slog.LevelWarn, "following changed interfaces in the rules", err)
		tx.workers.comparison.trigger()
	}
}
