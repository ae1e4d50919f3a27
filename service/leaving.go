package service

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// A bridge that leaves its zone for good, while firewalld does not answer, is
// still in that zone in the kernel, and the zone accepts what only the network's
// rules keep apart. So the rules stay, for the bridge's name alone as firewalld's
// are, until firewalld has let the bridge go or a network governs it again.

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
func (s *Service) withLeaving(c *conversation, t transition) transition {
	if t.leavesZone() && c.stuck[t.old.iface()] {
		t.stays = t.old.leaving()
	}
	if zoned(t.next) {
		t.displaces = s.debts.leavingOn(t.next.iface())
	}
	return t
}

func (s *Service) allWithLeaving(c *conversation, ts []transition) []transition {
	for i := range ts {
		ts[i] = s.withLeaving(c, ts[i])
	}
	return ts
}

// recordLeaving is the step of a change that remembers what stays, with the
// network as it was.
func (s *Service) recordLeaving(ts []transition, undo *undoStack) error {
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
		back, err := s.Leaving.PutLeaving(store.Leaving{Bridge: net.Bridge, Doc: doc, Rules: t.stays.hasRules})
		if err != nil {
			return errorf(ApplyFailed, "recording that %s has to leave its zone: %w", net.Bridge, err)
		}
		undo.add(back)
	}
	return nil
}

// oweLeaving notes what firewalld has yet to do after a change.
func (s *Service) oweLeaving(ts []transition) {
	for _, t := range ts {
		if t.stays != nil {
			s.Log.Warn("firewalld does not answer: the bridge stays in its zone, and under its rules, until it does",
				"network", t.old.net.Name, "bridge", t.stays.net.Bridge)
			s.owe(t.stays.net.Bridge, "")
		}
	}
	s.noteLeaving()
}

// forgetLeaving removes the records of what a network governs again.
func (s *Service) forgetLeaving(ts []transition) {
	for _, t := range ts {
		if t.displaces == nil {
			continue
		}
		if err := s.Leaving.ForgetLeaving(t.displaces.net.Bridge); err != nil {
			s.Log.Warn("forgetting that a bridge had to leave its zone", "bridge", t.displaces.net.Bridge, "error", err)
		}
	}
}

// letGo takes out the rules of a bridge that has left its zone.
func (s *Service) letGo(ctx context.Context, iface string) (gone bool) {
	gone = true
	s.withLock(context.WithoutCancel(ctx), func(ctx context.Context) {
		m := s.debts.leavingOn(iface)
		if m == nil {
			return
		}
		if m.hasRules {
			if err := s.active.Apply(ctx, backend.Change{Remove: []string{m.net.Name}}); err != nil {
				s.complain(ctx, slog.LevelError, "taking out the rules of a bridge that has left its zone", err, "bridge", iface)
				gone = false
				return
			}
			s.forgetCounters(m.net.Name)
		}
		s.debts.put(transition{displaces: m})
		s.forgetLeaving([]transition{{displaces: m}})
		s.noteLeaving()
		s.Log.Info("a bridge has left its zone, and its rules are taken out", "bridge", iface)
	})
	return gone
}

// restoreLeaving takes over what an earlier run still owed. A bridge that a
// network governs again owes nothing.
func (s *Service) restoreLeaving() {
	records, broken := s.Leaving.LoadLeaving()
	s.noteBrokenRecords(fromLeaving, broken, "see that `firewall-cmd --get-active-zones` has no bridge of a removed network, then remove the file")
	for _, b := range broken {
		s.Log.Error("a record of a bridge that has to leave its zone cannot be used and is kept aside: see that `firewall-cmd --get-zone-of-interface` names no zone of libvirt for it",
			"file", b.Path, "error", b.Err)
	}
	for _, r := range records {
		if name, ok := s.registry.HolderOf(r.Bridge); ok && s.governsZone(name) {
			s.forgetLeaving([]transition{{displaces: &managed{net: r.Network}}})
			continue
		}
		m := &managed{net: r.Network, subnets: r.Network.Subnets(), hasRules: r.Rules}
		s.debts.put(transition{stays: m.leaving()})
		s.debts.owe(r.Bridge, "")
	}
	s.noteLeaving()
}

// governsZone reports whether a network's bridge is in a zone by its doing.
func (s *Service) governsZone(name string) bool {
	m, _ := s.registry.Get(name)
	return zoned(m)
}

// Owed are the bridges that firewalld has yet to let go, each with the reason.
func (s *Service) Owed() error {
	owed := s.debts.all()
	if len(owed) == 0 {
		return nil
	}
	return fmt.Errorf("%v are still in their zones: %w", slices.Sorted(maps.Keys(owed)), errMute)
}
