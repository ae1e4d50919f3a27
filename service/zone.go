package service

import (
	"context"
	"errors"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// zoneState is what a network wants of firewalld and what it has.
type zoneState struct {
	byHand *string // set by BindInterface ("" = unbound by hand); nil: as the mode calls for
	bound  string
	unseen bool   // nobody has asked yet which zone it is in
	life   string // the run of firewalld that has it there
	// last is what an earlier run of the service recorded, as long as unseen.
	last    *store.ZoneRecord
	moved   bool            // somebody put the bridge there with firewall-cmd, which is respected
	problem finding.Finding // why it is not in the zone that it should be in, if it is not
	retry   bool            // trying again may help
}

// concernsZones reports whether the bridge's zone is the service's business. That
// of an open network is not, as with libvirt, unless somebody named one: its
// bridge stays where the administrator put it.
func (m *managed) concernsZones() bool {
	return m.net.Mode != network.ModeOpen || m.net.Zone != "" || m.zone.byHand != nil
}

// zoned reports whether a network has to do with firewalld; nil does not.
func zoned(m *managed) bool { return m != nil && m.concernsZones() }

// zoneIn is the zone that the network's bridge belongs in, "" for none, as
// firewalld is.
func (m *managed) zoneIn(have zones.Installed) (string, error) {
	want := m.net.Zone
	switch {
	case m.zone.moved && have.Running:
		return m.zone.bound, nil
	case m.zone.byHand != nil && *m.zone.byHand == "":
		return "", nil
	case m.zone.byHand != nil:
		want = *m.zone.byHand
	}
	return zones.Choose(want, string(m.net.Mode), have)
}

// inside is the network's state in its zone, as firewalld is.
func (m *managed) inside(zone string, have zones.Installed) zoneState {
	return zoneState{byHand: m.zone.byHand, moved: m.zone.moved, bound: zone, life: have.Life}
}

// outside is the network's state where its bridge could not enter its zone and
// is in another, or "" for none. A host without firewalld is no reason to
// complain, unless the network names a zone.
func (m *managed) outside(zone string, err error) zoneState {
	state := m.zone
	state.bound = zone
	if errors.Is(err, zones.ErrNotRunning) {
		state = zoneState{byHand: m.zone.byHand}
		if m.net.Zone == "" {
			return state
		}
	}
	if !m.concernsZones() {
		return state // where it is, is not known, and does not matter
	}
	state.problem, state.retry = m.zoneFinding(err), !untilFirewalldChanges(err)
	return state
}

// untilFirewalldChanges says of an error that only firewalld's own next step,
// which its signals tell of, can mend it.
func untilFirewalldChanges(err error) bool {
	var (
		missing  zones.ErrZoneMissing
		notFound zones.ErrZoneNotFound
	)
	return errors.Is(err, zones.ErrNotRunning) || errors.As(err, &missing) || errors.As(err, &notFound)
}

// complainOfZones logs what is news, once for all networks that have it. That
// they are degraded by it has its own line.
func (s *Service) complainOfZones(places []*place) {
	var news []*place
	for _, p := range places {
		if errors.Is(p.err, context.Canceled) {
			continue // the service stops, and the next start tries again
		}
		if state := p.state(); state.problem.ID != "" && state.problem != p.m.zone.problem { // each event looks at it again
			news = append(news, p)
		}
	}
	switch len(news) {
	case 0:
	case 1:
		s.Log.Debug("binding a bridge to its zone", news[0].m.fields(news[0].err.Error())...)
	default:
		names := make([]string, len(news))
		for i, p := range news {
			names[i] = p.m.net.Name
		}
		slices.Sort(names)
		s.Log.Debug("binding bridges to their zones", "networks", names, "cause", news[0].err.Error())
	}
}

// leavesZone reports whether a bridge is in a zone that is no longer the service's
// business after the change.
func (t transition) leavesZone() bool {
	if t.zoneStays || t.old == nil || !t.old.concernsZones() || (t.old.zone.bound == "" && !t.old.zone.unseen) {
		return false
	}
	return t.next == nil || t.next.net.Bridge != t.old.net.Bridge || !t.next.concernsZones()
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
	err := s.change(ctx, name, always, func(c *conversation) (intent, error) {
		old, err := s.known(name)
		if err != nil {
			return intent{}, err
		}
		if old.iface() != iface && old.net.Bridge != iface {
			return intent{}, errorf(NetworkNotFound, "network %q has another bridge than %q now: try again", name, iface)
		}
		if err := expect.allows(old); err != nil {
			return intent{}, err
		}
		if c.err != nil {
			return intent{}, zoneError(iface, "", c.err)
		}
		if !c.have.Running {
			return intent{}, errorf(FirewalldNotRunning, "binding %s: firewalld is not running: start it first", iface)
		}
		next := *old
		next.zone.byHand, next.zone.moved = zone, false
		if next.zone.unseen { // where it was does not matter any more
			next.zone.last = nil
		}
		return intent{transition: transition{old: old, next: &next, zoneAsked: true}, cause: "BindInterface", files: s.recordChoice(&next)}, nil
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
	return s.changeZones(ctx, func(managed []string) ([]string, error) { return s.Firewalld.Install(ctx, force, managed) })
}

// RemoveZones takes out the zones and policies that InstallZones put in.
func (s *Service) RemoveZones(ctx context.Context, o zones.Removal) ([]string, error) {
	return s.changeZones(ctx, func(managed []string) ([]string, error) { return s.Firewalld.Remove(ctx, o, managed) })
}

func (s *Service) changeZones(ctx context.Context, do func(managed []string) ([]string, error)) ([]string, error) {
	c, err := s.insist(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	names, err := do(s.managedBridges())
	if err != nil {
		return nil, zoneError("", "", err)
	}
	if len(names) > 0 { // firewalld has reloaded
		c.look(ctx)
		s.zonesAnew(ctx, c)
	}
	return names, nil
}

func (s *Service) managedBridges() []string {
	var bridges []string
	for _, m := range s.registry.All() {
		bridges = append(bridges, m.net.Bridge)
		if m.renamed() {
			bridges = append(bridges, m.iface())
		}
	}
	return bridges
}
