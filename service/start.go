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
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// ownerPause is how long a start waits for the table's former owner to be gone.
const ownerPause = time.Second

// loader puts the stored networks in force at a start.
type loader struct {
	files          Files
	records        binding.Records
	leavingRecords LeavingRecords
	totals         *Totals
	binder         *binding.Binder
	networks       *networks
	leaving        *leaving
	view           *hostView
	rules          *rules
	changes        *transactions
	forwarding     *forwarder
	advertisements *advertiser
	connections    *connections
	log            logger
	workers        *workers
}

// takeOver loads what is stored and brings the kernel to it, whatever an
// earlier run left there.
func (ld *loader) takeOver(ctx context.Context) error {
	state, broken, err := ld.files.Load()
	if err != nil {
		return fmt.Errorf("loading the stored networks: %w", err)
	}
	ld.noteBroken(slices.Concat(broken, ld.files.Faults()))
	records := ld.loadZoneRecords()
	refused := ld.adoptAll(state, records)
	ld.forgetZones(records)
	ld.restoreLeaving()
	ld.totals.forget(func(name string) bool { _, known := ld.networks.Get(name); return !known })
	members := ld.rules.members()
	ld.changes.rememberAll()
	sync := func() error { _, err := ld.rules.syncTo(ctx, ld.rules.active); return err }
	err = untilOwnerGone(ctx, sync)
	if errors.As(err, new(*nftables.OwnedError)) {
		// A user who waits for the other program to end sees why in the State.
		ld.rules.noteForeign(err)
		ld.log.Error("putting the networks in force", "error", err)
		ld.workers.comparison.trigger()
	} else if err != nil {
		return errorf(BackendUnavailable, "putting the stored networks in force: %w", err)
	}
	if err := ld.rules.removeIdle(ctx); err != nil {
		return err
	}
	if err := ld.files.Keep(state, refused); err != nil {
		ld.log.Error("a network whose file breaks may not come back as it is", "error", err)
	}
	ld.followTakeOver(ctx)
	if err == nil {
		ld.log.Info("in force", "networks", len(members), "backend", ld.rules.backend().Name())
	}
	ld.networks.sumUpStates()
	return nil
}

// removeIdle takes out what an earlier run left with the backend that is not in
// use. A table that belongs to another program is none of an earlier run's.
func (rs *rules) removeIdle(ctx context.Context) error {
	idle := rs.idle()
	if !slices.Contains(rs.networks.Host().AvailableBackends, idle.Name()) {
		return nil
	}
	err := untilOwnerGone(ctx, func() error { return idle.RemoveAll(ctx) })
	if errors.As(err, new(*nftables.OwnedError)) {
		rs.log.Warn("leaving a table alone that another program owns", "backend", rs.active.Name(), "error", err)
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
func (rs *rules) idle() backend.Backend {
	if rs.active.Name() == choice.NFTables {
		return rs.backends.Get(choice.IPTables)
	}
	return rs.backends.Get(choice.NFTables)
}

// followTakeOver does what rests on the rules. Connections are looked at even
// if the rules held all the time: the earlier run may have been killed before
// it came to that.
func (ld *loader) followTakeOver(ctx context.Context) {
	ld.advertisements.reapply(ctx, map[string]string{})
	var nets []network.Network
	for _, m := range ld.networks.All() {
		ld.forwarding.again(ctx, m)
		if m.translates() {
			nets = append(nets, m.net)
		}
	}
	ld.view.noteSubnets(ld.networks.All())
	ld.connections.retranslate(nets)
	ld.workers.checksums.trigger()
	ld.workers.libvirt.trigger()
	ld.workers.foreign.trigger()
}

// restored is a stored network as it will be. What the host has under its
// bridge's name does not keep it from loading: its state says so.
func (ld *loader) restored(e store.Entry, link int, zone *store.ZoneRecord) (*managed, error) {
	if err := ld.view.admitBeside(e.Network); err != nil {
		return nil, err
	}
	b, err := ld.view.look(e.Network.Bridge, link, ld.view.takenFrom(e.Network.Name))
	if err != nil {
		return nil, err
	}
	m := managed{net: e.Network, backend: ld.rules.backend().Name(), subnets: e.Network.Subnets(), persistent: e.Persistent, bridge: b}
	m.zone = m.zoning().Recall(zone)
	return ld.view.withDevices(m.compiled()), nil
}

// adopt makes a network known without telling anybody.
func (ld *loader) adopt(m *managed) {
	ld.networks.Put([]registry.Change[*managed]{{Next: m}}, nil)
}
