package service

import (
	"context"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// transition is one network's way from what was to what shall be: old is nil
// for a new network, next for one that goes.
type transition struct {
	old, next *managed
	// zoneAsked says that the caller named a zone just now, so that a bridge
	// which cannot enter it fails the change.
	zoneAsked bool
	// zoneStays says that the bridge is left in its zone, though the network goes:
	// it is libvirt's too, which put it there.
	zoneStays bool
	// anew says that the network's counters begin anew.
	anew bool
	// stays is what holds for the old bridge until it has left its zone, and
	// displaces what held for the new one until now; nil for nothing.
	stays, displaces *managed
}

func (t transition) name() string {
	if t.next != nil {
		return t.next.net.Name
	}
	return t.old.net.Name
}

// commit makes transitions real in the files and then in the kernel, all or
// none; back undoes it. The caller holds the lock.
func (s *Service) commit(ctx context.Context, ts []transition, files func() (func() error, error)) (back undoStack, err error) {
	if err = s.commitSteps(ctx, ts, files, &back); err == nil {
		return back, nil
	}
	s.takeBack(back)
	return nil, err
}

func (s *Service) commitSteps(ctx context.Context, ts []transition, files func() (func() error, error), undo *undoStack) error {
	if files != nil {
		back, err := files()
		if err != nil {
			return errorf(ApplyFailed, "storing the change: %w", err)
		}
		undo.add(back)
	}
	if err := s.recordLeaving(ts, undo); err != nil {
		return err
	}
	return s.changeRules(ctx, ts, undo)
}

// changeRules is the kernel's step.
func (s *Service) changeRules(ctx context.Context, ts []transition, undo *undoStack) error {
	change := changeOf(ts)
	if len(change.Set)+len(change.Remove) == 0 {
		return nil
	}
	if err := s.keepCounters(ctx, ts); err != nil {
		return errorf(ApplyFailed, "keeping the counters: %w", err)
	}
	undo.add(func() error {
		s.rememberLinks(reversed(ts))
		return s.active.Apply(context.WithoutCancel(ctx), changeOf(reversed(ts)))
	})
	s.rememberLinks(ts)
	if err := s.active.Apply(ctx, change); err != nil {
		return errorf(ApplyFailed, "changing the kernel's rules: %w", err)
	}
	return nil
}

// changeOf is the kernel's share of transitions.
func changeOf(ts []transition) backend.Change {
	var c backend.Change
	for _, t := range ts {
		switch {
		case t.next != nil && t.next.hasRules:
			c.Set = append(c.Set, t.next.member())
		case t.old != nil && t.old.hasRules:
			c.Remove = append(c.Remove, t.name())
		}
		if t.stays != nil && t.stays.hasRules {
			c.Set = append(c.Set, t.stays.member())
		}
		if t.displaces != nil && t.displaces.hasRules {
			c.Remove = append(c.Remove, t.displaces.net.Name)
		}
	}
	return c
}

func reversed(ts []transition) []transition {
	out := make([]transition, len(ts))
	for i, t := range ts {
		out[i] = transition{old: t.next, next: t.old, stays: t.displaces, displaces: t.stays}
	}
	return out
}

// change is the registry's share of a transition.
func (t transition) change() registry.Change[*managed] {
	return registry.Change[*managed]{Old: t.old, Next: t.next}
}

// publish makes transitions visible and tells of them, but for networks whose
// change is not certain yet.
func (s *Service) publish(ts []transition) {
	changes := make([]registry.Change[*managed], len(ts))
	for i, t := range ts {
		changes[i] = t.change()
		s.leaving.put(t)
	}
	s.registry.Put(changes, func(certain []registry.Change[*managed]) {
		for _, t := range ts {
			s.binder.Record(t.zoning())
		}
		s.forgetLeaving(ts)
		s.tell(certain)
	})
}

// edit changes one network by a function from value to value, and tells of it.
// Nothing is done where there is none of that name, or the function returns what
// it was given.
func (s *Service) edit(name string, f func(m *managed) *managed) {
	var t transition
	s.registry.Edit(name, func(m *managed) *managed {
		t = transition{old: m, next: f(m)}
		return t.next
	}, func(certain []registry.Change[*managed]) {
		s.binder.Record(t.zoning())
		s.tell(certain)
	})
}

// tell logs changes of State and tells clients of changes.
func (s *Service) tell(changes []registry.Change[*managed]) {
	findings := false
	s.reportStates(changes)
	for _, c := range changes {
		t := transition{old: c.Old, next: c.Next}
		if e := eventOf(t); e != nil {
			s.Notify(e)
		}
		findings = findings || t.findsOtherwise()
	}
	if findings {
		s.Notify(FindingsChanged{})
	}
}

// findsOtherwise reports whether other things are found of the network than
// before.
func (t transition) findsOtherwise() bool {
	var old, next []finding.Finding
	if t.old != nil {
		old = t.old.findings()
	}
	if t.next != nil {
		next = t.next.findings()
	}
	return !slices.Equal(old, next)
}

func eventOf(t transition) Event {
	switch {
	case t.old == nil && t.next == nil:
		return nil
	case t.old == nil:
		return NetworkAdded{Status: t.next.status()}
	case t.next == nil:
		return NetworkRemoved{Status: t.old.status()}
	}
	old, next := t.old.status(), t.next.status()
	if equalStatus(old, next) {
		return nil
	}
	return NetworkChanged{Old: old, New: next}
}

func equalStatus(a, b Status) bool {
	return a.Network.Equal(b.Network) && a.Persistent == b.Persistent && a.Backend == b.Backend &&
		a.BridgeIndex == b.BridgeIndex && a.State == b.State && a.StateCode == b.StateCode && a.StateReason == b.StateReason && a.BoundZone == b.BoundZone
}

// finish does what rests on the rules and cannot fail a call: forwarding is
// switched on, the change is told, and connections that began before their
// translation was there are forgotten soon after.
func (s *Service) finish(ctx context.Context, ts []transition, cause string) {
	var fresh []network.Network
	var gone []string
	ts = s.ignoreGuests(ctx, ts)
	hosts := sync.OnceValue(s.hostSubnets)
	for i := range ts {
		t := &ts[i]
		if t.next == nil {
			gone = append(gone, t.name())
			continue
		}
		_, found := s.forwarding(ctx, t.next)
		t.next = t.next.noting(fromForwarding, found...)
		if t.old == nil || !slices.Equal(t.old.subnets, t.next.subnets) {
			t.next = t.next.noting(fromSubnets, subnetFindings(hosts(), t.next)...)
		}
		if t.next.translates() && (t.old == nil || !slices.Equal(t.old.translated(), t.next.translated())) {
			fresh = append(fresh, t.next.net)
		}
	}
	s.publish(ts)
	for _, t := range ts {
		s.report(t, cause)
	}
	if len(gone) > 0 {
		s.forgetCounters(gone...)
	}
	for _, t := range ts {
		if t.anew {
			s.restartCounters(ctx, t.name())
		}
	}
	s.retranslate(fresh)
	s.leaveOldNames(ts)
	s.workers.checksums.trigger()
	s.workers.libvirt.trigger()
	s.lookAgain(ctx, ts)
}

// dhcpBridges are the bridges that DHCP replies leave by, with their networks.
func (s *Service) dhcpBridges() map[string]string {
	want := make(map[string]string)
	if s.backend().Name() == choice.IPTables {
		return want // libvirt's own rules fill them in
	}
	for _, m := range s.registry.All() {
		if m.present() && m.servesDHCPv4() {
			want[m.iface()] = m.net.Name
		}
	}
	return want
}
