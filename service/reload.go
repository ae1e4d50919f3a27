package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// ownerPause is how long a start waits for the table's former owner to be gone.
const ownerPause = time.Second

// takeOver loads what is stored and brings the kernel to it, whatever an
// earlier run left there.
func (s *Service) takeOver(ctx context.Context) error {
	state, broken, err := s.Files.Load()
	if err != nil {
		return fmt.Errorf("loading the stored networks: %w", err)
	}
	for _, b := range broken {
		s.Log.Error("a stored network is left out until its file is right", "file", b.Path, "error", b.Err)
	}
	for _, e := range state.Current() {
		m, err := s.restored(e)
		if err != nil {
			s.Log.Error("a stored network is left out until its file is right", "file", e.Path, "network", e.Network.Name, "error", err)
			continue
		}
		s.adopt(m)
	}
	s.Totals.forget(func(name string) bool { return s.networks[name] == nil })
	members := s.members()
	if err := s.firstSync(ctx, members); err != nil {
		return errorf(BackendUnavailable, "putting %d networks in force: %w", len(members), err)
	}
	if idle := s.idle(); slices.Contains(s.HostStatus().AvailableBackends, idle.Name()) {
		if err := idle.Vacate(ctx); err != nil {
			return errorf(BackendUnavailable, "taking out what an earlier run left with %s: %w", idle.Name(), err)
		}
	}
	s.followTakeOver(ctx)
	s.Log.Info("in force", "networks", len(members), "backend", s.active.Name())
	return nil
}

// firstSync waits a little for an owner of the table that was just killed: a
// process that it was starting then has its socket until it runs its program.
func (s *Service) firstSync(ctx context.Context, members []Member) error {
	for deadline := time.Now().Add(ownerPause); ; {
		_, err := s.active.Sync(ctx, members)
		if !errors.Is(err, unix.EPERM) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// idle is the backend that is not in use.
func (s *Service) idle() Backend {
	if s.active.Name() == choice.NFTables {
		return s.Backends.Get(choice.IPTables)
	}
	return s.Backends.Get(choice.NFTables)
}

// followTakeOver does what rests on the rules. Connections are looked at even
// if the rules held all the time: the earlier run may have been killed before
// it came to that.
func (s *Service) followTakeOver(ctx context.Context) {
	var nets []network.Network
	for _, m := range s.all() {
		s.forwardAgain(ctx, m)
		if m.translates() {
			nets = append(nets, m.net)
		}
	}
	s.retranslate(nets)
	poke(s.dhcp)
	poke(s.foreign)
}

// restored is a stored network as it will be. What the host has under its
// bridge's name does not keep it from loading: its state says so.
func (s *Service) restored(e store.Entry) (*managed, error) {
	if err := s.admitBeside(e.Network); err != nil {
		return nil, err
	}
	b, err := s.look(e.Network.Bridge, 0)
	if err != nil {
		return nil, err
	}
	m := managed{net: e.Network, backend: s.active.Name(), subnets: e.Network.Subnets(), persistent: e.Persistent, bridge: b}
	m.zone.unseen = true
	return m.compiled(), nil
}

// adopt makes a network known without telling anybody.
func (s *Service) adopt(m *managed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks[m.net.Name] = m
	s.bridges[m.net.Bridge] = m.net.Name
}

// Reload reads configuration and files again. Runtime networks stay; runtime
// changes to persistent ones end. All of it is one transaction.
func (s *Service) Reload(ctx context.Context) error {
	c := s.converse(ctx)
	defer c.end()
	var undo undoStack
	if err := s.reload(ctx, c, &undo); err != nil {
		s.takeBack(undo)
		return err
	}
	if !c.held {
		s.kick()
		return nil
	}
	s.zonesAnew(ctx, c)
	return nil
}

func (s *Service) reload(ctx context.Context, c *conversation, undo *undoStack) error {
	var (
		settings Config
		decision choice.Decision
		state    store.State
	)
	_, err := s.whenLeft(ctx, c, undo, func() (ts []transition, err error) {
		if settings, decision, err = s.decide(ctx); err != nil {
			return nil, err
		}
		if state, err = s.readNetworks(); err != nil {
			return nil, err
		}
		// What is wrong with the files shows before anything is moved.
		return s.reloaded(state)
	})
	if err != nil {
		return err
	}
	defer s.unlock()
	forget := func() (func() error, error) { return s.Files.ForgetRuntimeChanges(state) }
	err = s.move(ctx, decision.Backend, func() error {
		ts, err := s.reloaded(state)
		if err != nil {
			return err
		}
		if _, err = s.commit(ctx, ts, forget); err == nil {
			s.finish(ctx, ts, "Reload")
		}
		return err
	})
	if err == nil {
		s.decided(settings.Configured, decision)
	}
	return err
}

// readNetworks reads the files again; one that is broken is an error.
func (s *Service) readNetworks() (store.State, error) {
	state, broken, err := s.Files.Read()
	if err != nil {
		return state, errorf(ApplyFailed, "reading the stored networks: %w", err)
	}
	if len(broken) > 0 {
		return state, errorf(InvalidArgument, "reading %s: %w; mend the file and reload again", broken[0].Path, broken[0].Err)
	}
	return state, nil
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
	for _, old := range s.all() {
		if _, stays := want[old.net.Name]; !stays {
			ts = append(ts, transition{old: old})
		}
	}
	for name, e := range want {
		old, _ := s.known(name)
		if old != nil && old.net.Equal(e.Network) && old.persistent == e.Persistent && old.zone.byHand == nil {
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

// oneBridgeEach checks that no network comes for a bridge that another keeps
// under a new name.
func (s *Service) oneBridgeEach(ts []transition) error {
	changes := make(map[string]bool, len(ts))
	for _, t := range ts {
		changes[t.name()] = true
	}
	stay := map[int]*managed{}
	for _, m := range s.all() {
		if !changes[m.net.Name] && m.bridge.index != 0 {
			stay[m.bridge.index] = m
		}
	}
	for _, t := range ts {
		if t.next != nil && stay[t.next.bridge.index] != nil {
			return renamedFrom(t.next.net, stay[t.next.bridge.index])
		}
	}
	return nil
}

func (s *Service) reloadedOne(e store.Entry, old *managed) (*managed, error) {
	index := 0
	if old != nil && old.net.Bridge == e.Network.Bridge {
		index = old.bridge.index
	}
	b, err := s.look(e.Network.Bridge, index)
	if err != nil {
		return nil, err
	}
	next := managed{net: e.Network, backend: s.active.Name(), subnets: e.Network.Subnets(), persistent: e.Persistent, bridge: b}
	if old == nil || !slices.Equal(old.subnets, next.subnets) {
		if err := s.admitOnHost(e.Network, b); err != nil {
			return nil, fmt.Errorf("network %q: %w", e.Network.Name, err)
		}
	}
	if old != nil && old.net.Bridge == e.Network.Bridge {
		next.zone.bound = old.zone.bound
		next.keepLibvirt(old)
	}
	return next.compiled(), nil
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
		for _, p := range e.Network.Subnets() {
			all = append(all, owned{p, name})
		}
	}
	if a, b, overlaps := firstOverlap(all); overlaps {
		return errorf(SubnetOverlap, "subnet %s of network %q overlaps %s of network %q: change one of them", a.prefix, a.network, b.prefix, b.network)
	}
	return nil
}

// Reapply compares kernel and zones with what should be there and mends the
// difference. repairs counts the networks that needed it.
func (s *Service) Reapply(ctx context.Context) (repairs int, err error) {
	c := s.converse(ctx)
	defer c.end()
	mended, err := s.reapplyRules(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range s.rebind(ctx, c, true) {
		mended[name] = "its bridge was not in its zone"
	}
	if c.held {
		s.refreshHost(ctx, c)
	}
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.unlock()
	s.afterRepair(ctx, mended)
	return len(mended), nil
}

// reapplyRules compares the rules, and gives the networks that needed it, each
// with the reason.
func (s *Service) reapplyRules(ctx context.Context) (map[string]string, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	mended := map[string]string{}
	var ts []transition
	for _, m := range s.all() {
		if t, changed := s.relinked(m.net.Name); changed {
			ts = append(ts, t)
			mended[m.net.Name] = "its bridge had changed"
		}
	}
	s.applyLinks(ctx, ts, "Reapply")
	damaged, err := s.active.Sync(ctx, s.members())
	if err != nil {
		return nil, errorf(ApplyFailed, "mending the kernel's rules: %w", err)
	}
	for _, name := range damaged {
		mended[name] = "its rules had been changed"
	}
	return mended, nil
}

// afterRepair does what follows rules that came back, and tells of it.
func (s *Service) afterRepair(ctx context.Context, mended map[string]string) {
	var nets []network.Network
	for _, m := range s.all() {
		s.forwardAgain(ctx, m)
		if _, ok := mended[m.net.Name]; ok && m.translates() {
			nets = append(nets, m.net)
		}
	}
	s.retranslate(nets)
	poke(s.dhcp)
	poke(s.foreign)
	for name, cause := range mended {
		s.repaired(name, cause)
		s.Notify(Repaired{Name: name, Cause: cause})
	}
}

// members are all networks that have rules, by name.
func (s *Service) members() []Member {
	var out []Member
	for _, m := range s.all() {
		if m.hasRules {
			out = append(out, m.member())
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Network.Name, b.Network.Name) })
	return out
}
