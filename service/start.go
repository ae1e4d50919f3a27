package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
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
	s.noteBroken(slices.Concat(broken, s.Files.Faults()))
	records := s.loadZoneRecords()
	refused := s.adoptAll(state, records)
	s.forgetZones(records)
	s.restoreLeaving()
	s.Totals.forget(func(name string) bool { _, known := s.registry.Get(name); return !known })
	members := s.members()
	s.rememberAll()
	sync := func() error { _, err := s.active.Sync(ctx, members); return err }
	err = untilOwnerGone(ctx, sync)
	if errors.As(err, new(*nftables.OwnedError)) {
		// Who waits for the other program to end sees why in the State.
		s.noteRules(err)
		s.Log.Error("putting the networks in force", "error", err)
		s.workers.comparison.trigger()
	} else if err != nil {
		return errorf(BackendUnavailable, "putting the stored networks in force: %w", err)
	}
	if err := s.removeIdleRules(ctx); err != nil {
		return err
	}
	if err := s.Files.Keep(state, refused); err != nil {
		s.Log.Error("a network whose file breaks may not come back as it is", "error", err)
	}
	s.followTakeOver(ctx)
	if err == nil {
		s.Log.Info("in force", "networks", len(members), "backend", s.active.Name())
	}
	s.sumUpStates()
	return nil
}

// removeIdleRules takes out what an earlier run left with the backend that is not in
// use. A table that belongs to another program is none of an earlier run's.
func (s *Service) removeIdleRules(ctx context.Context) error {
	idle := s.idle()
	if !slices.Contains(s.HostStatus().AvailableBackends, idle.Name()) {
		return nil
	}
	err := untilOwnerGone(ctx, func() error { return idle.RemoveAll(ctx) })
	if errors.As(err, new(*nftables.OwnedError)) {
		s.Log.Warn("leaving a table alone that another program owns", "backend", s.active.Name(), "error", err)
		return nil
	}
	if err != nil {
		return errorf(BackendUnavailable, "taking out what an earlier run left with %s: %w", idle.Name(), err)
	}
	return nil
}

// untilOwnerGone waits a little for an owner of the table that was just killed:
// a process that it was starting then has its socket until it runs its program.
func untilOwnerGone(ctx context.Context, do func() error) error {
	for deadline := time.Now().Add(ownerPause); ; {
		err := do()
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
func (s *Service) idle() backend.Backend {
	if s.active.Name() == choice.NFTables {
		return s.Backends.Get(choice.IPTables)
	}
	return s.Backends.Get(choice.NFTables)
}

// followTakeOver does what rests on the rules. Connections are looked at even
// if the rules held all the time: the earlier run may have been killed before
// it came to that.
func (s *Service) followTakeOver(ctx context.Context) {
	s.reapplyAdvertisements(ctx, map[string]string{})
	var nets []network.Network
	for _, m := range s.registry.All() {
		s.forwardAgain(ctx, m)
		if m.translates() {
			nets = append(nets, m.net)
		}
	}
	s.noteSubnets(s.registry.All())
	s.retranslate(nets)
	s.workers.checksums.trigger()
	s.workers.libvirt.trigger()
}

// restored is a stored network as it will be. What the host has under its
// bridge's name does not keep it from loading: its state says so.
func (s *Service) restored(e store.Entry, link int, zone *store.ZoneRecord) (*managed, error) {
	if err := s.admitBeside(e.Network); err != nil {
		return nil, err
	}
	b, err := s.look(e.Network.Bridge, link, s.takenFrom(e.Network.Name))
	if err != nil {
		return nil, err
	}
	m := managed{net: e.Network, backend: s.active.Name(), subnets: e.Network.Subnets(), persistent: e.Persistent, bridge: b}
	m.zone = m.zoning().Recall(zone)
	return s.withDevices(m.compiled()), nil
}

// adopt makes a network known without telling anybody.
func (s *Service) adopt(m *managed) {
	s.registry.Put([]registry.Change[*managed]{{Next: m}}, nil)
}
