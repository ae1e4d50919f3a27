package service

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const (
	// foreignPause is how long changes of other programs' rules gather before they
	// are looked at: dockerd and ufw make dozens in a second.
	foreignPause = 200 * time.Millisecond
	// foreignShare keeps looking at them to one part in so many of the time.
	foreignShare = 10
	// foreignDoubt is how long it takes at least until what stops guests is looked at
	// again, before it is said: programs write rules in steps.
	foreignDoubt = 200 * time.Millisecond
	// foreignPatience is how long a look waits for firewalld to end a reload.
	foreignPatience = 10 * time.Second
	// foreignRetry is how long a look that failed waits for the next one, and
	// maxForeignRetry how far that grows.
	foreignRetry    = 2 * time.Second
	maxForeignRetry = 5 * time.Minute
)

// Foreign is the rules of other programs, and our own beside them where the iptables
// backend has them.
type Foreign interface {
	// Tables reads what filters.
	Tables(ctx context.Context) ([]analysis.Table, error)
	// Follow calls changed whenever that may be other than before, until the context
	// ends.
	Follow(ctx context.Context, changed func()) error
}

// foreignFollower finds out which networks' traffic others stop.
type foreignFollower struct {
	foreign  Foreign
	ours     *rules
	links    Links
	binder   *binding.Binder
	networks *networks
	lock     *changeLock
	log      logger
	workers  *workers
	// What is left of the last look, the worker's own: how it ended, how long to wait
	// after a failure, and the networks that something stopped for the first time.
	last     failure
	retry    time.Duration
	suspects map[string]bool
}

// follow has the rules looked at when they change.
func (f *foreignFollower) follow(ctx context.Context) {
	if err := f.foreign.Follow(ctx, f.workers.foreign.trigger); err != nil {
		f.log.complain(ctx, slog.LevelWarn, "changes of other programs' rules are seen at the next change of a network only", err)
	}
}

// round looks at the rules once.
func (f *foreignFollower) round(ctx context.Context) (again time.Time) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if f.fighting(ctx) {
		return time.Now().Add(fightWindow)
	}
	found, err := f.look(ctx)
	if errors.Is(err, nfnl.ErrChanged) {
		return time.Now().Add(foreignRetry) // others are busy, and will be done
	}
	f.last = f.last.then(ctx, err, func(cause string) {
		f.log.Warn("it is not known whether other programs' rules stop guests", "cause", cause)
	})
	if err != nil {
		f.retry = min(max(2*f.retry, foreignRetry), maxForeignRetry)
		return time.Now().Add(f.retry)
	}
	f.retry = 0
	suspects := make(map[string]bool)
	f.lock.during(ctx, func(context.Context) {
		for _, m := range f.networks.All() {
			name := m.net.Name
			if fs := found[name]; len(fs) > 0 && len(m.noted[fromForeign]) == 0 && !f.suspects[name] {
				suspects[name] = true
				again = time.Now().Add(foreignDoubt)
			} else {
				f.networks.note(name, fromForeign, fs...)
			}
		}
	})
	f.suspects = suspects
	return again
}

// look returns what others stop, by network. It reads nothing where no network could
// have any.
func (f *foreignFollower) look(ctx context.Context) (map[string][]finding.Finding, error) {
	concerned := slices.DeleteFunc(f.networks.All(), func(m *managed) bool { return !m.hasRules || !m.present() })
	if len(concerned) == 0 {
		return nil, nil
	}
	tables, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	uplinks := f.uplinks()
	found := make(map[string][]finding.Finding)
	for _, m := range concerned {
		found[m.net.Name] = cut(tables, m, uplinks)
	}
	return found, nil
}

// fighting reports whether another program undoes our own rules each time they are put
// back, or may be beginning to: then each look would be one too many, and slow down
// the repairs.
func (f *foreignFollower) fighting(ctx context.Context) (fight bool) {
	f.lock.during(ctx, func(context.Context) { fight = f.ours.repairs.fights.brewing(time.Now()) })
	return fight
}

// read reads the rules, not while firewalld reloads: then it stops what is forwarded.
func (f *foreignFollower) read(ctx context.Context) ([]analysis.Table, error) {
	patient, cancel := context.WithTimeout(ctx, foreignPatience)
	defer cancel()
	f.binder.AwaitAnswer(patient)
	return f.foreign.Tables(ctx)
}

// cut returns what stops a network's traffic. What firewalld does follows from its
// zones, and chains like libvirt's are libvirt's or the iptables backend's: both have
// findings of their own.
func cut(tables []analysis.Table, m *managed, uplinks analysis.Uplinks) []finding.Finding {
	if len(m.devices) > 0 {
		uplinks = analysis.Uplinks{IPv4: m.devices, IPv6: m.devices}
	}
	cuts := analysis.Cuts(tables, analysis.Entitled(m.net, m.iface(), uplinks))
	cuts = slices.DeleteFunc(cuts, func(c analysis.Cut) bool {
		return slices.Contains([]string{"firewalld", "libvirt"}, analysis.Culprit(tables, c.At))
	})
	if len(cuts) == 0 {
		return nil
	}
	e := analysis.Explain(tables, cuts)
	return []finding.Finding{{ID: finding.ForeignDrop, Summary: e.Summary, Evidence: e.Evidence, Remedy: e.Remedy}}
}

// uplinks are the interfaces of the default routes, without networks' own bridges.
func (f *foreignFollower) uplinks() (out analysis.Uplinks) {
	ours := make(map[int]bool)
	for _, m := range f.networks.All() {
		ours[m.bridge.index] = true
	}
	for _, r := range f.links.DefaultRoutes() {
		link, ok := f.links.LinkByIndex(r.Index)
		if !ok || ours[r.Index] {
			continue
		}
		out = withUplink(out, r, link)
	}
	return out
}

func withUplink(u analysis.Uplinks, r watch.Route, link watch.Link) analysis.Uplinks {
	list := &u.IPv4
	if r.IPv6 {
		list = &u.IPv6
	}
	if !slices.Contains(*list, link.Name) {
		*list = append(*list, link.Name)
	}
	return u
}
