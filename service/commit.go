package service

import (
	"context"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
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
func (tx *transactions) commit(ctx context.Context, ts []transition, files func() (func() error, error)) (back undoStack, err error) {
	if err = tx.commitSteps(ctx, ts, files, &back); err == nil {
		return back, nil
	}
	tx.takeBack(back)
	return nil, err
}

func (tx *transactions) commitSteps(ctx context.Context, ts []transition, files func() (func() error, error), undo *undoStack) error {
	if files != nil {
		back, err := files()
		if err != nil {
			return errorf(ApplyFailed, "storing the change: %w", err)
		}
		undo.add(back)
	}
	if err := tx.recordLeaving(ts, undo); err != nil {
		return err
	}
	return tx.changeRules(ctx, ts, undo)
}

// changeRules is the kernel's step.
func (tx *transactions) changeRules(ctx context.Context, ts []transition, undo *undoStack) error {
	change := changeOf(ts)
	if len(change.Set)+len(change.Remove) == 0 {
		return nil
	}
	if err := tx.counters.keep(ctx, ts); err != nil {
		return errorf(ApplyFailed, "keeping the counters: %w", err)
	}
	undo.add(func() error {
		tx.rememberLinks(reversed(ts))
		return tx.rules.backend().Apply(context.WithoutCancel(ctx), changeOf(reversed(ts)))
	})
	tx.rememberLinks(ts)
	if err := tx.rules.backend().Apply(ctx, change); err != nil {
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

// finish does what rests on the rules and cannot fail a call: forwarding is
// switched on, the change is told, and connections that began before their
// translation was there are forgotten soon after.
func (tx *transactions) finish(ctx context.Context, ts []transition, cause string) {
	var fresh []network.Network
	var gone []string
	ts = tx.advertisements.ignore(ctx, ts)
	hosts := sync.OnceValue(tx.view.hostSubnets)
	for i := range ts {
		t := &ts[i]
		if t.next == nil {
			gone = append(gone, t.name())
			continue
		}
		_, found := tx.forwarding.switchOn(ctx, t.next)
		t.next = t.next.noting(fromForwarding, found...)
		if t.old == nil || !slices.Equal(t.old.subnets, t.next.subnets) {
			t.next = t.next.noting(fromSubnets, subnetFindings(hosts(), t.next)...)
		}
		if t.next.translates() && (t.old == nil || !slices.Equal(t.old.translated(), t.next.translated())) {
			fresh = append(fresh, t.next.net)
		}
	}
	tx.networks.publish(ts)
	for _, t := range ts {
		tx.networks.report(t, cause)
	}
	if len(gone) > 0 {
		tx.counters.forget(gone...)
	}
	for _, t := range ts {
		if t.anew {
			tx.counters.restart(ctx, t.name())
		}
	}
	tx.connections.retranslate(fresh)
	tx.leaveOldNames(ts)
	tx.workers.checksums.trigger()
	tx.workers.libvirt.trigger()
	tx.lookAgain(ctx, ts)
}

// dhcpBridges are the bridges that DHCP replies leave by, with their networks.
func (s *Service) dhcpBridges() map[string]string {
	want := make(map[string]string)
	if s.rules.backend().Name() == choice.IPTables {
		return want // libvirt's own rules fill them in
	}
	for _, m := range s.networks.All() {
		if m.present() && m.servesDHCPv4() {
			want[m.iface()] = m.net.Name
		}
	}
	return want
}
