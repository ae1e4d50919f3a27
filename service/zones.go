package service

import (
	"context"
	"errors"
	"log/slog"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// zoning returns what matters of the network to firewalld; nil for no network.
func (m *managed) zoning() *binding.Bridge {
	if m == nil {
		return nil
	}
	return &binding.Bridge{
		Network: m.net.Name, Name: m.net.Bridge, Iface: m.iface(), Stray: m.bridge.stray != "",
		Mode: m.net.Mode, Zone: m.net.Zone, State: m.zone,
	}
}

// zoning returns what matters of the transition to firewalld.
func (t transition) zoning() binding.Change {
	return binding.Change{Old: t.old.zoning(), Next: t.next.zoning(), Asked: t.zoneAsked, Stays: t.zoneStays}
}

// zoned reports whether firewalld has a part in a network; in nil it has none.
func zoned(m *managed) bool { return m.zoning().Governed() }

// zonedNetworks are the networks as package binding needs them.
type zonedNetworks struct {
	lock     *changeLock
	networks *networks
	changes  *transactions
}

func (z zonedNetworks) Bridges(networks []string) (out []binding.Bridge) {
	if networks == nil {
		for _, m := range z.networks.All() {
			out = append(out, *m.zoning())
		}
		return out
	}
	for _, name := range networks {
		if m, ok := z.networks.Get(name); ok {
			out = append(out, *m.zoning())
		}
	}
	return out
}

func (z zonedNetworks) Update(ctx context.Context, networks []string, next func(binding.Bridge) (binding.State, bool)) {
	z.lock.during(ctx, func(context.Context) {
		var ts []transition
		for _, b := range z.Bridges(networks) {
			if state, ok := next(b); ok {
				old, _ := z.networks.known(b.Network)
				now := *old
				now.zone = state
				ts = append(ts, transition{old: old, next: &now})
			}
		}
		z.networks.publish(ts)
	})
}

func (z zonedNetworks) Released(ctx context.Context, iface string) bool {
	return z.changes.released(ctx, iface)
}

// compareZones compares all bridges with firewalld and refreshes what the
// service says of it. firewalld before 2.0 flushes iptables' chains when it
// reloads, so checksum help is looked at too.
func (s *Service) compareZones(ctx context.Context, c *binding.Session, which binding.Scope) {
	// firewalld takes its name before it flushes, and answers only after: rules
	// that are put back before the first answer may be gone with it.
	s.refreshFirewalld(ctx, c)
	s.rules.refill(ctx)
	c.Rebind(ctx, which)
	s.workers.checksums.trigger()
	s.workers.libvirt.trigger()
	s.workers.foreign.trigger()
}

// refreshFirewalld reads the properties of the service that are firewalld's. Of one
// that does not answer no more is known than that it is there.
func (s *Service) refreshFirewalld(ctx context.Context, c *binding.Session) {
	if err := c.Err(); err != nil {
		s.log.complain(ctx, slog.LevelWarn, "asking firewalld for its zones", err)
		s.networks.changeHost(func(h *Host) { h.FirewalldRunning = true })
		return
	}
	have, backend := c.Installed(), ""
	if have.Running {
		var err error
		if backend, err = s.firewalld.Backend(c.Patient(ctx)); c.Note(err) != nil {
			s.log.complain(ctx, slog.LevelWarn, "asking firewalld for its backend", err)
		}
	}
	s.networks.changeHost(func(h *Host) {
		h.FirewalldRunning, h.FirewalldBackend = have.Running, backend
		h.InstalledZones = have.Ours()
	})
}

// refill puts iptables rules back: firewalld flushes the tables when it starts
// and reloads, and announces it, so that it is no opponent. A table of the
// service's own no other program flushes by the way.
func (rs *rules) refill(ctx context.Context) {
	if rs.backend().Name() != choice.IPTables {
		return
	}
	rs.lock.during(ctx, func(ctx context.Context) {
		rs.answer(ctx, opponent{Program: "firewalld"}, "firewalld had flushed its rules")
		for name, f := range rs.repairs.fights {
			rs.repairs.fights[name] = f.explained()
		}
	})
}

// BindInterface puts a managed bridge into a zone by hand. It stays there until
// the network's zone is changed or the service reloads, also over restarts of
// the service and of firewalld; a reboot ends it.
func (s *Service) BindInterface(ctx context.Context, iface, zone string, expect Expect) (string, error) {
	var byHand *string
	if zone != "" {
		byHand = &zone
	}
	return s.zoneByHand(ctx, iface, byHand, expect)
}

// UnbindInterface takes a managed bridge out of its zone by hand, for as long.
func (s *Service) UnbindInterface(ctx context.Context, iface string, expect Expect) error {
	_, err := s.zoneByHand(ctx, iface, new(string), expect)
	return err
}

func (s *Service) zoneByHand(ctx context.Context, iface string, zone *string, expect Expect) (string, error) {
	name, ok := s.NetworkByBridge(iface)
	if !ok {
		return "", errorf(NetworkNotFound, "%q is not the bridge of a managed network: add the network first, or use firewall-cmd", iface)
	}
	always := func(*managed) bool { return true }
	err := s.changes.change(ctx, name, always, func(c *binding.Session) (intent, error) {
		old, err := s.networks.known(name)
		if err != nil {
			return intent{}, err
		}
		if old.iface() != iface && old.net.Bridge != iface {
			return intent{}, errorf(NetworkNotFound, "network %q has another bridge than %q now: try again", name, iface)
		}
		if err := expect.allows(old); err != nil {
			return intent{}, err
		}
		if err := c.Err(); err != nil {
			return intent{}, errorf(zoneKind(err), "finding a zone for %s: %w", iface, err)
		}
		if !c.Installed().Running {
			return intent{}, errorf(FirewalldNotRunning, "binding %s: firewalld is not running: start it first", iface)
		}
		next := *old
		next.zone.ByHand, next.zone.Moved = zone, false
		if next.zone.Unseen { // where it was does not matter any more
			next.zone.Last = nil
		}
		return intent{
			transition: transition{old: old, next: &next, zoneAsked: true},
			cause:      "BindInterface",
			files:      func() (func() error, error) { return s.binder.RecordChoice(*next.zoning()) },
		}, nil
	})
	if err != nil {
		return "", err
	}
	st, _ := s.NetworkStatus(name)
	return st.BoundZone, nil
}

// InstallZones gives firewalld the zones and policies that it lacks, and then
// binds every bridge again, since firewalld's reload forgets them.
func (s *Service) InstallZones(ctx context.Context, force bool) ([]string, error) {
	return s.changeZones(ctx, func(managed []string) ([]string, error) { return s.firewalld.Install(ctx, force, managed) })
}

// RemoveZones takes out the zones and policies that InstallZones put in.
func (s *Service) RemoveZones(ctx context.Context, o zones.Removal) ([]string, error) {
	return s.changeZones(ctx, func(managed []string) ([]string, error) { return s.firewalld.Remove(ctx, o, managed) })
}

func (s *Service) changeZones(ctx context.Context, do func(managed []string) ([]string, error)) ([]string, error) {
	c, err := s.binder.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.End()
	names, err := do(s.managedBridges())
	if err != nil {
		return nil, zoneError(err)
	}
	if len(names) > 0 { // firewalld has reloaded
		c.Look(ctx)
		s.compareZones(ctx, c, binding.AllAnew)
	}
	return names, nil
}

func (s *Service) managedBridges() []string {
	var bridges []string
	for _, m := range s.networks.All() {
		bridges = append(bridges, m.net.Bridge)
		if m.renamed() {
			bridges = append(bridges, m.iface())
		}
	}
	return bridges
}

// zoneError returns an error of firewalld or of its zones with its kind.
func zoneError(err error) error { return &Error{Kind: zoneKind(err), Err: err} }

func zoneKind(err error) Kind {
	var (
		notFound zones.ErrZoneNotFound
		missing  zones.ErrZoneMissing
		changes  zones.ErrRuntimeChanges
		inUse    zones.ErrInUse
	)
	switch {
	case errors.Is(err, zones.ErrNotRunning):
		return FirewalldNotRunning
	case errors.As(err, &notFound):
		return ZoneNotFound
	case errors.As(err, &missing), errors.As(err, &changes), errors.As(err, &inUse):
		return ZonesNotInstalled
	}
	return ApplyFailed
}
