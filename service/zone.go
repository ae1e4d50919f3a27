package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// enterZone puts a network's bridge into the zone that it should be in. For a
// zone that the client asked for by name a failure is an error; otherwise the
// rules hold all the same, and the network says that it is degraded.
func (s *Service) enterZone(ctx context.Context, t transition, undo *undoStack) error {
	m := t.next
	if m == nil || m.bridge.refused != "" {
		return nil
	}
	before, err := s.zoneBefore(ctx, t)
	zone := ""
	if err == nil {
		zone, err = s.zoneFor(ctx, m)
	}
	if err == nil && zone == "" && !m.concernsZones() {
		zone = before
	}
	if err == nil && zone != before {
		undo.add(func() error { return s.rebind(context.WithoutCancel(ctx), m.net.Bridge, before) })
		err = s.moveBridge(ctx, m.net.Bridge, zone)
	}
	if err != nil && t.zoneAsked {
		return zoneError(m.net.Bridge, zone, err)
	}
	if err != nil {
		s.withoutZone(m, before, err)
		return nil
	}
	m.zone.bound, m.zone.problem = zone, ""
	return nil
}

// zoneBefore is the zone that the bridge of a change is in. Of one that is new
// to the service it matters only where the change can fail and has to put it
// back: firewalld is slow to ask.
func (s *Service) zoneBefore(ctx context.Context, t transition) (string, error) {
	if t.old != nil && t.old.net.Bridge == t.next.net.Bridge {
		if t.leavesZone() {
			return "", nil
		}
		return t.old.zone.bound, nil
	}
	if !t.zoneAsked {
		return "", nil
	}
	bound, err := s.Zones.Interfaces(ctx)
	return bound[t.next.net.Bridge], err
}

// moveBridge puts a bridge into a zone, "" for none.
func (s *Service) moveBridge(ctx context.Context, iface, zone string) error {
	if zone == "" {
		return s.Zones.Unbind(ctx, "", iface)
	}
	_, err := s.Zones.Bind(ctx, iface, zone)
	return err
}

// concernsZones says whether the bridge's zone is the service's business. That
// of an open network is not, as with libvirt, unless somebody named one: its
// bridge stays where the administrator put it.
func (m *managed) concernsZones() bool {
	return m.net.Mode != network.ModeOpen || m.net.Zone != "" || m.zone.byHand != nil
}

// withoutZone notes why a bridge is not in its zone. A host without firewalld
// is no reason to complain, unless the network names a zone.
func (s *Service) withoutZone(m *managed, before string, err error) {
	known := m.zone.problem
	m.zone.bound = before
	m.zone.problem = fmt.Sprintf("bridge %s is not in its firewalld zone: %v", m.net.Bridge, err)
	if errors.Is(err, zones.ErrNotRunning) {
		m.zone.bound = ""
		if m.net.Zone == "" {
			m.zone.problem = ""
			return
		}
	}
	if m.zone.problem != known { // each firewalld event looks at it again
		s.Log.Warn("binding a bridge to its zone", "network", m.net.Name, "bridge", m.net.Bridge, "error", err)
	}
}

// zoneFor is the zone that a network's bridge belongs in now; "" for none.
func (s *Service) zoneFor(ctx context.Context, m *managed) (string, error) {
	want := m.net.Zone
	if m.zone.byHand != nil {
		if want = *m.zone.byHand; want == "" {
			return "", nil
		}
	}
	have, err := s.Zones.Installed(ctx)
	if err != nil {
		return "", err
	}
	return zones.Choose(want, string(m.net.Mode), have)
}

// leavesZone says whether a bridge is in a zone that is no longer the service's
// business after the change.
func (t transition) leavesZone() bool {
	if t.old == nil || t.old.zone.bound == "" || !t.old.concernsZones() {
		return false
	}
	return t.next == nil || t.next.net.Bridge != t.old.net.Bridge || !t.next.concernsZones()
}

// leaveZone takes a bridge out of a zone that it leaves for good.
func (s *Service) leaveZone(ctx context.Context, t transition, undo *undoStack) error {
	if !t.leavesZone() {
		return nil
	}
	iface, zone := t.old.net.Bridge, t.old.zone.bound
	undo.add(func() error { return s.rebind(context.WithoutCancel(ctx), iface, zone) })
	if err := s.Zones.Unbind(ctx, "", iface); err != nil && !errors.Is(err, zones.ErrNotRunning) {
		return zoneError("", "", err)
	}
	return nil
}

// rebind puts a bridge back where it was, as far as firewalld is there.
func (s *Service) rebind(ctx context.Context, iface, zone string) error {
	err := s.moveBridge(ctx, iface, zone)
	if errors.Is(err, zones.ErrNotRunning) {
		return nil
	}
	return err
}

// zoneError gives an error of package zones its kind.
func zoneError(iface, zone string, err error) error {
	var (
		notFound zones.ErrZoneNotFound
		missing  zones.ErrZoneMissing
		changes  zones.ErrRuntimeChanges
		inUse    zones.ErrInUse
	)
	kind := ApplyFailed
	switch {
	case errors.Is(err, zones.ErrNotRunning):
		kind = FirewalldNotRunning
	case errors.As(err, &notFound):
		kind = ZoneNotFound
	case errors.As(err, &missing), errors.As(err, &changes), errors.As(err, &inUse):
		kind = ZonesNotInstalled
	}
	if iface == "" {
		return &Error{Kind: kind, Err: err}
	}
	if zone == "" {
		return errorf(kind, "finding a zone for %s: %w", iface, err)
	}
	return errorf(kind, "binding %s to zone %s: %w", iface, zone, err)
}

// BindInterface puts a managed bridge into a zone by hand. It stays there until
// the network's zone is changed, a reload or a restart.
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
	if err := s.lock(ctx); err != nil {
		return "", err
	}
	defer s.unlock()
	name, ok := s.NetworkByBridge(iface)
	if !ok {
		return "", errorf(NetworkNotFound, "%q is not the bridge of a managed network: add the network first, or use firewall-cmd", iface)
	}
	old, err := s.known(name)
	if err != nil {
		return "", err
	}
	if err := expect.allows(old); err != nil {
		return "", err
	}
	have, err := s.Zones.Installed(ctx)
	if err != nil {
		return "", zoneError(iface, "", err)
	}
	if !have.Running {
		return "", errorf(FirewalldNotRunning, "binding %s: firewalld is not running: start it first", iface)
	}
	next := *old
	next.zone.byHand = zone
	ts := []transition{{old: old, next: &next, zoneAsked: true}}
	if err := s.commit(ctx, ts, nil); err != nil {
		return "", err
	}
	return next.zone.bound, nil
}

// InstallZones gives firewalld the zones and policies that it lacks, and then
// binds every bridge again, since firewalld's reload forgets them.
func (s *Service) InstallZones(ctx context.Context, force bool) ([]string, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	installed, err := s.ZoneFiles.Install(ctx, force, s.boundBridges())
	if err != nil {
		return nil, zoneError("", "", err)
	}
	s.rebindAll(ctx)
	s.refreshHost(ctx)
	return installed, nil
}

// RemoveZones takes out the zones and policies that InstallZones put in.
func (s *Service) RemoveZones(ctx context.Context, unbind bool) ([]string, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	removed, err := s.ZoneFiles.Remove(ctx, unbind, s.boundBridges())
	if err != nil {
		return nil, zoneError("", "", err)
	}
	s.rebindAll(ctx)
	s.refreshHost(ctx)
	return removed, nil
}

func (s *Service) boundBridges() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []string
	for bridge := range s.bridges {
		out = append(out, bridge)
	}
	return out
}

// rebindAll compares every bridge's zone with what firewalld has and mends the
// difference. It returns the networks that needed it. The caller holds the lock.
func (s *Service) rebindAll(ctx context.Context) (mended []string) {
	bound, err := s.Zones.Interfaces(ctx)
	if err != nil && !errors.Is(err, zones.ErrNotRunning) {
		s.Log.Warn("asking firewalld which interfaces its zones have", "error", err)
	}
	var undo undoStack // nothing is taken back: each bridge stands for itself
	for _, m := range s.all() {
		seen := *m
		seen.zone.bound = bound[m.net.Bridge]
		next := seen
		if err := s.enterZone(ctx, transition{old: &seen, next: &next}, &undo); err != nil {
			next.zone.problem = err.Error()
			next.zone.bound = seen.zone.bound
		}
		if next.zone.bound != seen.zone.bound {
			mended = append(mended, m.net.Name)
		}
		s.publish([]transition{{old: m, next: &next}})
	}
	return mended
}

// all are the networks as they are now.
func (s *Service) all() []*managed {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*managed, 0, len(s.networks))
	for _, m := range s.networks {
		out = append(out, m)
	}
	return out
}

// refreshHost looks at firewalld anew for the properties of the service.
func (s *Service) refreshHost(ctx context.Context) {
	have, err := s.Zones.Installed(ctx)
	if err != nil {
		s.Log.Warn("asking firewalld for its zones", "error", err)
	}
	backend := ""
	if have.Running {
		if backend, err = s.Zones.Backend(ctx); err != nil {
			s.Log.Warn("asking firewalld for its backend", "error", err)
		}
	}
	s.changeHost(func(h *Host) {
		h.FirewalldRunning, h.FirewalldBackend = have.Running, backend
		h.InstalledZones = have.Ours()
	})
}
