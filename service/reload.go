package service

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// Reload reads configuration and files again. Runtime networks stay; runtime
// changes to persistent ones end. All of it is one transaction.
func (s *Service) Reload(ctx context.Context) error {
	s.view.seeHost(ctx)
	c := s.binder.TryBegin(ctx)
	defer c.End()
	var undo undoStack
	if err := s.reload(ctx, c, &undo); err != nil {
		s.changes.takeBack(undo)
		return err
	}
	if !c.Held() {
		s.binder.EndMoves(ctx)
		s.workers.comparison.trigger()
		return nil
	}
	s.compareZones(ctx, c, binding.AllAnew)
	return nil
}

func (s *Service) reload(ctx context.Context, c *binding.Session, undo *undoStack) error {
	var (
		settings Config
		decision choice.Decision
		state    store.State
	)
	return s.changes.onceLeft(ctx, c, undo, func() (ts []transition, err error) {
		if settings, decision, err = s.chooser.decide(ctx); err != nil {
			return nil, err
		}
		if state, err = s.loader.readNetworks(); err != nil {
			return nil, err
		}
		// What is wrong with the files shows before anything is moved.
		return s.reloaded(state)
	}, func() error {
		if err := s.rules.move(ctx, decision.Backend, func() error { return s.applyReloaded(ctx, c, state) }); err != nil {
			return err
		}
		s.chooser.decided(settings.Configured, decision)
		s.loader.noteRead(state)
		s.chooser.configured(settings, nil)
		return nil
	})
}

// applyReloaded puts what the files say in force.
func (s *Service) applyReloaded(ctx context.Context, c *binding.Session, state store.State) error {
	ts, err := s.reloaded(state)
	if err != nil {
		return err
	}
	ts = s.changes.allWithLeaving(c, ts)
	forget := func() (func() error, error) { return s.files.ForgetRuntimeChanges(state) }
	if _, err = s.changes.commit(ctx, ts, forget); err != nil {
		return err
	}
	s.changes.finish(ctx, ts, "Reload")
	s.changes.postponeLeaving(ts)
	return nil
}

// readNetworks reads the files again; one that is broken is an error, and is
// found of the networks that stay as they are for it.
func (ld *loader) readNetworks() (store.State, error) {
	state, broken, err := ld.files.Read()
	if err != nil {
		return state, errorf(ApplyFailed, "reading the stored networks: %w", err)
	}
	if len(broken) == 0 {
		return state, nil
	}
	for _, e := range state.AfterReload() {
		if e.Fault != nil {
			ld.networks.note(e.Network.Name, fromFile, standing(e)...)
		}
	}
	ld.networks.noteHost(fromFile, neverUsable(broken)...)
	return state, errorf(InvalidArgument, "reading %s: %w; mend the file and reload again", broken[0].Path, broken[0].Err)
}

// reloaded is the way from what is in force to what the files say.
func (s *Service) reloaded(state store.State) ([]transition, error) {
	want := map[string]store.Entry{}
	for _, e := range state.AfterReload() {
		want[e.Network.Name] = e
	}
	if err := distinct(want); err != nil {
		return nil, err
	}
	var ts []transition
	for _, old := range s.networks.All() {
		if _, stays := want[old.net.Name]; !stays {
			ts = append(ts, transition{old: old, zoneStays: s.libvirt.has(old)})
		}
	}
	for name, e := range want {
		old, _ := s.networks.known(name)
		if old != nil && old.net.Equal(e.Network) && old.persistent == e.Persistent && old.zone.ByHand == nil {
			continue
		}
		next, err := s.reloadedOne(e, old)
		if err != nil {
			return nil, err
		}
		ts = append(ts, transition{old: old, next: next})
	}
	return ts, s.oneBridgeEach(ts)
}

// oneBridgeEach checks that no two networks have one link, under whatever names.
func (s *Service) oneBridgeEach(ts []transition) error {
	after := map[string]*managed{}
	for _, m := range s.networks.All() {
		after[m.net.Name] = m
	}
	for _, t := range ts {
		after[t.name()] = t.next
	}
	links := map[int]*managed{}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		m := after[name]
		if m == nil || m.bridge.index == 0 {
			continue
		}
		if other := links[m.bridge.index]; other != nil {
			if other.iface() == other.net.Bridge {
				m, other = other, m
			}
			return renamedFrom(m.net, other)
		}
		links[m.bridge.index] = m
	}
	return nil
}

func (s *Service) reloadedOne(e store.Entry, old *managed) (*managed, error) {
	index := 0
	if old != nil && old.net.Bridge == e.Network.Bridge {
		index = old.bridge.index
	}
	b, err := s.view.look(e.Network.Bridge, index, byNobody)
	if err != nil {
		return nil, err
	}
	next := managed{net: e.Network, backend: s.rules.backend().Name(), subnets: e.Network.Subnets(), persistent: e.Persistent, bridge: b}
	if old == nil || !slices.Equal(old.subnets, next.subnets) {
		if err := s.view.admitOnHost(e.Network, b); err != nil {
			return nil, fmt.Errorf("network %q: %w", e.Network.Name, err)
		}
	}
	if old != nil && old.net.Bridge == e.Network.Bridge {
		next.zone.Bound = old.zone.Bound
		next.noted = old.notedBeside(fromFile)
	}
	return s.view.withDevices(next.compiled()), nil
}

// distinct checks networks that come together against one another.
func distinct(want map[string]store.Entry) error {
	if len(want) > network.MaxNetworks {
		return errorf(LimitExceeded, "%d networks are stored, %d are the most there may be", len(want), network.MaxNetworks)
	}
	bridges := map[string]string{}
	var all []owned
	for name, e := range want {
		if other, taken := bridges[e.Network.Bridge]; taken {
			return errorf(BridgeInUse, "networks %q and %q both have bridge %s: give one another bridge", name, other, e.Network.Bridge)
		}
		bridges[e.Network.Bridge] = name
		for _, p := range contested(e.Network) {
			all = append(all, owned{p, name})
		}
	}
	if a, b, overlaps := firstOverlap(all); overlaps {
		return errorf(SubnetOverlap, "subnet %s of network %q overlaps %s of network %q: change one of them", a.prefix, a.network, b.prefix, b.network)
	}
	return nil
}
