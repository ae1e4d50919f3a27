package service

import (
	"context"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// settle ends a change that succeeded: links may have changed since it was
// held, and so may the zone where firewalld was not spoken with. A reload may
// even have taken the network out, or back in.
func (tx *transactions) settle(ctx context.Context, i intent, zone binding.State) {
	t := i.transition
	tx.lock.acquireAlways() // the change is made
	defer tx.lock.release()
	now, _ := tx.networks.known(t.name())
	if t.next != nil && (now == nil || now.net.Bridge != t.next.net.Bridge) {
		tx.binder.Postpone(t.next.iface(), "") // where it may just have been put
	} else if now != nil && t.next != nil && now.zone == i.held {
		next := *now
		next.zone = zone
		now = &next
	}
	tx.networks.Release(t.name())
	if t.next = now; t.next == nil && t.old == nil {
		return
	}
	tx.finish(ctx, []transition{t}, i.cause)
	if zone.Retry {
		tx.binder.Retry()
	}
}

// revert puts back what a held change replaced, unless a reload has meanwhile
// made the network something else again.
func (tx *transactions) revert(t transition, undo undoStack) error {
	tx.lock.acquireAlways()
	defer tx.lock.release()
	tx.networks.Release(t.name())
	now, err := tx.networks.known(t.name())
	if err != nil || !now.net.Equal(t.next.net) {
		tx.networks.publish([]transition{{old: t.old, next: now}})
		return nil
	}
	err = undo.run()
	was := t.old
	if was != nil && was.backend != now.backend { // all have moved to another one
		moved := *was
		moved.backend = now.backend
		was = &moved
	}
	back := transition{old: now, next: was, stays: t.displaces, displaces: t.stays}
	tx.networks.Put([]registry.Change[*managed]{back.change()}, nil)
	tx.leaving.put(back)
	tx.advertisements.ignore(context.Background(), []transition{{old: now, next: was}})
	if again, changed := tx.relinked(t.name()); changed {
		tx.applyLinks(context.Background(), []transition{again}, "link")
	}
	return err
}

// finish does what rests on the rules and cannot fail a call: forwarding is
// switched on, the change is reported, and connections that began before their
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
		if t.resets {
			tx.counters.restart(ctx, t.name())
		}
	}
	tx.connections.retranslate(fresh)
	tx.leaveOldNames(ts)
	tx.workers.checksums.trigger()
	tx.workers.libvirt.trigger()
	tx.workers.foreign.trigger()
	tx.lookAgain(ctx, ts)
}

// lookAgain looks at bridges whose names depend on other networks, after some of
// those have changed.
func (tx *transactions) lookAgain(ctx context.Context, changed []transition) {
	if !slices.ContainsFunc(changed, transition.movesLink) {
		return
	}
	var ts []transition
	for _, m := range tx.networks.All() {
		if m.bridge.stray != finding.BridgeTaken && !m.renamed() {
			continue
		}
		if t, other := tx.relinked(m.net.Name); other {
			ts = append(ts, t)
		}
	}
	tx.applyLinks(ctx, ts, "link")
}

// leaveOldNames takes names that bridges no longer have out of their zones: the
// zones accept what only a network's rules keep apart.
func (tx *transactions) leaveOldNames(ts []transition) {
	for _, t := range ts {
		if t.old == nil || t.next == nil || t.old.net.Bridge != t.next.net.Bridge || t.old.iface() == t.next.iface() {
			continue
		}
		if _, held := tx.networks.HolderOf(t.old.iface()); !held && t.old.zone.Bound != "" {
			tx.binder.Postpone(t.old.iface(), "")
		}
		tx.binder.Retry()
	}
}

// rememberLinks writes down which links networks have, before rules go by it:
// a bridge that is renamed while the service is down is known again by its
// index.
func (tx *transactions) rememberLinks(ts []transition) {
	for _, t := range ts {
		var old, next store.Link
		if t.old != nil {
			old = t.old.link()
		}
		if t.next != nil {
			next = t.next.link()
		}
		if old == next {
			continue
		}
		if err := tx.files.SaveLink(t.name(), next); err != nil {
			tx.log.Warn("a bridge that is renamed while the service is down may not be known again", "network", t.name(), "error", err)
		}
	}
}

// rememberAll writes down the links that networks have at a start.
func (tx *transactions) rememberAll() {
	kept := tx.files.Links()
	for _, m := range tx.networks.All() {
		tx.rememberLinks([]transition{{old: linked(m.net.Name, kept[m.net.Name]), next: m}})
		delete(kept, m.net.Name)
	}
	for name, link := range kept {
		tx.rememberLinks([]transition{{old: linked(name, link)}})
	}
}
