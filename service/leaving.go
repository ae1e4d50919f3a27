package service

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// A bridge that leaves its zone for good, while firewalld does not answer, is
// still in that zone in the kernel, and the zone accepts what only the network's
// rules keep apart. So the rules stay, for the bridge's name alone as firewalld's
// are, until firewalld has let the bridge go or a network governs it again.

// leaving are the bridges that have yet to leave their zones, by name, with what
// holds for them until then. Its methods may be called from any goroutine.
type leaving struct {
	leavingRecords LeavingRecords
	log            logger

	mu       sync.RWMutex
	byBridge map[string]*managed
}

// put takes in what a transition leaves behind, and what it displaces.
func (l *leaving) put(t transition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.displaces != nil {
		delete(l.byBridge, t.displaces.net.Bridge)
	}
	if t.stays != nil {
		l.byBridge[t.stays.net.Bridge] = t.stays
	}
}

// on returns what holds for a bridge until it has left its zone; nil for nothing.
func (l *leaving) on(bridge string) *managed {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byBridge[bridge]
}

// all returns what holds for bridges until they have left their zones, by name.
func (l *leaving) all() []*managed {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.SortedFunc(maps.Values(l.byBridge), func(a, b *managed) int { return strings.Compare(a.net.Bridge, b.net.Bridge) })
}

// LeavingRecords is where such bridges are remembered over restarts.
type LeavingRecords interface {
	LoadLeaving() ([]store.Leaving, []store.FileError)
	PutLeaving(store.Leaving) (undo func() error, err error)
	ForgetLeaving(bridge string) error
}

// leavingName is what backends call the rules of a bridge that leaves its zone:
// no network can have the name.
func leavingName(bridge string) string { return "leaving/" + bridge }

// leaving is what stays of a network whose bridge cannot leave its zone yet.
func (m *managed) leaving() *managed {
	stays := *m
	stays.net.Bridge, stays.bridge = m.iface(), bridge{}
	stays.net.Name = leavingName(stays.net.Bridge)
	return &stays
}

// withLeaving adds to a change what stays because firewalld did not answer, and
// what goes because a network governs its bridge again. The caller holds the
// lock.
func (tx *transactions) withLeaving(c *binding.Session, t transition) transition {
	if c.GetsStuck(t.zoning()) {
		t.stays = t.old.leaving()
	}
	if zoned(t.next) {
		t.displaces = tx.leaving.on(t.next.iface())
	}
	return t
}

func (tx *transactions) allWithLeaving(c *binding.Session, ts []transition) []transition {
	for i := range ts {
		ts[i] = tx.withLeaving(c, ts[i])
	}
	return ts
}

// recordLeaving is the step of a change that remembers what stays, with the
// network as it was.
func (tx *transactions) recordLeaving(ts []transition, undo *undoStack) error {
	for _, t := range ts {
		if t.stays == nil {
			continue
		}
		net := t.old.net
		net.Bridge = t.stays.net.Bridge
		doc, err := net.XML()
		if err != nil {
			return errorf(ApplyFailed, "writing network %q as XML: %w", t.old.net.Name, err)
		}
		back, err := tx.leavingRecords.PutLeaving(store.Leaving{Bridge: net.Bridge, Doc: doc, Rules: t.stays.hasRules})
		if err != nil {
			return errorf(ApplyFailed, "recording that %s has to leave its zone: %w", net.Bridge, err)
		}
		undo.add(back)
	}
	return nil
}

// postponeLeaving has bridges taken out of their zones once firewalld answers.
func (tx *transactions) postponeLeaving(ts []transition) {
	for _, t := range ts {
		if t.stays != nil {
			tx.log.Warn("firewalld does not answer: the bridge stays in its zone, and under its rules, until it does",
				"network", t.old.net.Name, "bridge", t.stays.net.Bridge)
			tx.binder.Postpone(t.stays.net.Bridge, "")
		}
	}
	tx.noteLeaving()
}

// forget removes the records of what a network governs again.
func (l *leaving) forget(ts []transition) {
	for _, t := range ts {
		if t.displaces == nil {
			continue
		}
		if err := l.leavingRecords.ForgetLeaving(t.displaces.net.Bridge); err != nil {
			l.log.Warn("forgetting that a bridge had to leave its zone", "bridge", t.displaces.net.Bridge, "error", err)
		}
	}
}

// released takes out the rules of a bridge that has left its zone, and reports
// whether they are gone.
func (tx *transactions) released(ctx context.Context, iface string) (gone bool) {
	gone = true
	tx.lock.during(context.WithoutCancel(ctx), func(ctx context.Context) {
		m := tx.leaving.on(iface)
		if m == nil {
			return
		}
		if m.hasRules {
			if err := tx.rules.backend().Apply(ctx, backend.Change{Remove: []string{m.net.Name}}); err != nil {
				tx.log.complain(ctx, slog.LevelError, "taking out the rules of a bridge that has left its zone", err, "bridge", iface)
				gone = false
				return
			}
			tx.counters.forget(m.net.Name)
		}
		tx.leaving.put(transition{displaces: m})
		tx.leaving.forget([]transition{{displaces: m}})
		tx.noteLeaving()
		tx.log.Info("a bridge has left its zone, and its rules are taken out", "bridge", iface)
	})
	return gone
}

// restoreLeaving takes over what an earlier run still owed. A bridge that a
// network governs again is in its zone for good.
func (ld *loader) restoreLeaving() {
	records, broken := ld.leavingRecords.LoadLeaving()
	ld.networks.noteBrokenRecords(fromLeaving, broken, "see that `firewall-cmd --get-active-zones` has no bridge of a removed network, then remove the file")
	for _, b := range broken {
		ld.log.Error("a record of a bridge that has to leave its zone cannot be used and is kept aside: see that `firewall-cmd --get-zone-of-interface` names no zone of libvirt for it",
			"file", b.Path, "error", b.Err)
	}
	for _, r := range records {
		if name, ok := ld.networks.HolderOf(r.Bridge); ok && ld.governsZone(name) {
			ld.leaving.forget([]transition{{displaces: &managed{net: r.Network}}})
			continue
		}
		m := &managed{net: r.Network, subnets: r.Network.Subnets(), hasRules: r.Rules}
		ld.leaving.put(transition{stays: m.leaving()})
		ld.binder.Postpone(r.Bridge, "")
	}
	ld.changes.noteLeaving()
}

// governsZone reports whether a network's bridge is in a zone by its doing.
func (ld *loader) governsZone(name string) bool {
	m, _ := ld.networks.Get(name)
	return zoned(m)
}

// Pending returns an error that names the interfaces which firewalld has yet to
// let go, and the reason; nil for none.
func (s *Service) Pending() error {
	pending := s.binder.Pending()
	if len(pending) == 0 {
		return nil
	}
	return fmt.Errorf("%v are still in their zones: %w", slices.Sorted(maps.Keys(pending)), binding.ErrUnresponsive)
}

// noteLeaving reports bridges that have yet to leave their zones.
func (tx *transactions) noteLeaving() {
	var bridges []string
	for _, m := range tx.leaving.all() {
		bridges = append(bridges, m.net.Bridge)
	}
	if len(bridges) == 0 {
		tx.networks.noteHost(fromZone)
		return
	}
	tx.networks.noteHost(fromZone, finding.Finding{
		ID: finding.FirewalldSilent, Remedy: binding.RemedySilent + "; the rules go as soon as it answers",
		Summary: fmt.Sprintf("firewalld does not answer, so what has left its network is still in its zone, and under its rules: %s", strings.Join(bridges, ", ")),
	})
}

// noteBrokenRecords reports records that were put aside at the start.
func (ns *networks) noteBrokenRecords(from source, broken []store.FileError, remedy string) {
	fs := make([]finding.Finding, len(broken))
	for i, b := range broken {
		fs[i] = finding.Finding{ID: finding.StateFileBroken, Summary: b.Error(), Remedy: remedy}
	}
	ns.noteHost(from, fs...)
}

// loadZoneRecords reads what an earlier run recorded of zones. What is broken is
// reported, and no reason not to start.
func (ld *loader) loadZoneRecords() store.ZoneRecords {
	records, broken := ld.records.LoadZones()
	ld.networks.noteBrokenRecords(fromZoneRecords, broken, "look at it, then remove it; a bridge that is in a zone of somebody's choice stays there until `virtfirewallctl reapply`")
	for _, b := range broken {
		ld.log.Warn("a record of a bridge's zone cannot be used and is kept aside: a bridge that is in a zone of somebody's choice stays there until the next reapply",
			"file", b.Path, "error", b.Err)
	}
	return records
}

// forgetZones removes the records of networks that an earlier run removed, and
// was killed before it forgot them.
func (ld *loader) forgetZones(records store.ZoneRecords) {
	for _, name := range records.Networks() {
		if _, err := ld.networks.known(name); err == nil {
			continue
		}
		if err := ld.records.ForgetZone(name); err != nil {
			ld.log.Warn("forgetting the zone of a network that is gone", "network", name, "error", err)
		}
	}
}

// noRecords remembers nothing.
type noRecords struct{}

func (noRecords) LoadZones() (store.ZoneRecords, []store.FileError) { return store.ZoneRecords{}, nil }
func (noRecords) ForgetZone(string) error                           { return nil }
func (noRecords) LoadLeaving() ([]store.Leaving, []store.FileError) { return nil, nil }
func (noRecords) ForgetLeaving(string) error                        { return nil }
func (noRecords) PutZone(store.ZoneRecord) (func() error, error)    { return noUndo, nil }
func (noRecords) PutLeaving(store.Leaving) (func() error, error)    { return noUndo, nil }

func noUndo() error { return nil }
