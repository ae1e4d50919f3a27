package service

import (
	"context"
	"errors"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// AddNetwork puts a network in force, or with Replace puts it in the place of
// the one of that name.
func (s *Service) AddNetwork(ctx context.Context, n network.Network, o ChangeOptions) error {
	s.view.seeHost(ctx)
	zoned := func(before *managed) bool { return zoned(before) || zoned(&managed{net: n}) }
	return s.changes.change(ctx, n.Name, zoned, func(c *binding.Session) (intent, error) {
		before, _ := s.networks.known(n.Name)
		if err := o.Expect.allows(before); err != nil {
			return intent{}, err
		}
		if before != nil && !o.Replace {
			return intent{}, errorf(NetworkExists, "network %q exists: update it, or replace it with --replace (option Replace)", n.Name)
		}
		n, source, err := s.view.byOwnName(n, o.Source)
		if err != nil {
			return intent{}, err
		}
		next, err := s.prepare(c, n, before)
		if err != nil {
			return intent{}, err
		}
		next.persistent = o.Persistent || s.files.Persistent(n.Name)
		doc, err := document(n, source)
		return intent{
			transition: transition{old: before, next: next, zoneAsked: asksZone(n, before), resets: before != nil},
			cause:      "AddNetwork",
			files:      func() (func() error, error) { return s.files.Put(n.Name, doc, o.Persistent) },
		}, err
	})
}

// byOwnName is a network whose bridge has the link's own name where it was asked
// for by an alternative one, which rules do not match: what is stored says the
// same as what is in force.
func (v *hostView) byOwnName(n network.Network, source []byte) (network.Network, []byte, error) {
	l, ok, err := v.hostLinks.Query(n.Bridge)
	if err != nil {
		return n, nil, errorf(ApplyFailed, "looking at bridge %s: %w", n.Bridge, err)
	}
	if !ok || l.Name == n.Bridge {
		return n, source, nil
	}
	n.Bridge = l.Name
	return n, nil, nil
}

// document is what is stored of a network: the client's own text where there
// is one, which says more than the service reads in it.
func document(n network.Network, source []byte) ([]byte, error) {
	if source != nil {
		return source, nil
	}
	doc, err := n.XML()
	if err != nil {
		return nil, errorf(ApplyFailed, "writing network %q as XML: %w", n.Name, err)
	}
	return doc, nil
}

// prepare makes the value that the network will be, or says why not.
func (s *Service) prepare(c *binding.Session, n network.Network, before *managed) (*managed, error) {
	b, err := s.view.admit(n, before)
	if err != nil {
		return nil, err
	}
	if asksZone(n, before) {
		if err := c.Require(n.Zone, string(n.Mode)); err != nil {
			return nil, zoneError(err)
		}
	}
	next := managed{net: n, backend: s.rules.backend().Name(), subnets: n.Subnets(), bridge: b}
	if before != nil {
		next.persistent = before.persistent
		next.noted = before.notedBeside(fromFile)
		if before.net.Bridge == n.Bridge && before.net.Zone == n.Zone {
			next.zone = before.zone
			if before.net.Mode != n.Mode {
				next.zone = next.zone.Unmoved()
			}
		}
	}
	return s.view.withDevices(next.compiled()), nil
}

// asksZone reports whether the network names a zone that it did not name before.
func asksZone(n network.Network, before *managed) bool {
	return n.Zone != "" && (before == nil || before.net.Zone != n.Zone || before.net.Bridge != n.Bridge)
}

// RemoveNetwork ends the service's say over a network.
func (s *Service) RemoveNetwork(ctx context.Context, name string, o ChangeOptions) error {
	known := true
	err := s.changes.change(ctx, name, zoned, func(*binding.Session) (intent, error) {
		before, err := s.networks.known(name)
		if err := o.Expect.allows(before); err != nil {
			return intent{}, err
		}
		known = err == nil
		return intent{
			transition: transition{old: before, zoneStays: s.libvirt.has(before)},
			cause:      "RemoveNetwork",
			files:      func() (func() error, error) { return s.files.Remove(name, o.Persistent) },
		}, err
	})
	if !known && o.Persistent && s.files.Persistent(name) {
		return s.removeFile(ctx, name, o.Expect)
	}
	return err
}

// removeFile ends a persistent network that was removed until the next reload.
func (s *Service) removeFile(ctx context.Context, name string, expect Expect) error {
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	now, _ := s.networks.known(name)
	if err := expect.allows(now); err != nil {
		return err
	}
	if _, err := s.files.Remove(name, true); err != nil {
		return errorf(ApplyFailed, "removing the file of network %q: %w", name, err)
	}
	return nil
}

// UpdateNetwork changes some settings of a network, in one step.
func (s *Service) UpdateNetwork(ctx context.Context, name string, settings map[string]any, o ChangeOptions) error {
	s.view.seeHost(ctx)
	zoned := func(before *managed) bool {
		return zoned(before) || settings["ForwardMode"] != nil || settings["Zone"] != nil
	}
	return s.changes.change(ctx, name, zoned, func(c *binding.Session) (intent, error) {
		before, err := s.networks.known(name)
		if err != nil {
			return intent{}, err
		}
		if err := o.Expect.allows(before); err != nil {
			return intent{}, err
		}
		n, err := before.net.With(settings)
		if err != nil {
			return intent{}, invalid(err)
		}
		if n.Bridge != before.net.Bridge {
			if n, _, err = s.view.byOwnName(n, nil); err != nil {
				return intent{}, err
			}
		}
		next, err := s.prepare(c, n, before)
		if err != nil {
			return intent{}, err
		}
		next.persistent = before.persistent || o.Persistent
		doc, err := document(n, nil)
		return intent{
			transition: transition{old: before, next: next, zoneAsked: asksZone(n, before)},
			cause:      "Update",
			files:      func() (func() error, error) { return s.files.Put(name, doc, o.Persistent) },
		}, err
	})
}

// invalid returns an error of package network with its kind.
func invalid(err error) error {
	switch {
	case errors.Is(err, network.ErrLimit):
		return &Error{Kind: LimitExceeded, Err: err}
	case errors.Is(err, network.ErrNotSupported):
		return &Error{Kind: NotSupported, Err: err}
	}
	return &Error{Kind: InvalidArgument, Err: err}
}

// NetworkStatus is the network of that name.
func (s *Service) NetworkStatus(name string) (Status, bool) {
	m, ok := s.networks.Get(name)
	if !ok {
		return Status{}, false
	}
	return m.status(), true
}

// NetworkByBridge is the name of the network that has the bridge: under the
// name that the link has, or else the one that the network says.
func (s *Service) NetworkByBridge(bridge string) (string, bool) {
	if name, ok := s.networks.HolderOf(bridge); ok {
		return name, true
	}
	return s.networks.ConfiguredFor(bridge)
}

// AllNetworks are all networks, by name.
func (s *Service) AllNetworks() []Status { return s.networks.statuses() }
