package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// backend is the one that holds the rules now.
func (s *Service) backend() backend.Backend {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.active
}

// decide reads the configuration, probes the host and chooses. A configured
// backend that does not work is an error and never replaced in silence.
func (s *Service) decide(ctx context.Context) (Config, choice.Decision, error) {
	c, err := s.Settings.Read()
	if err != nil {
		return c, choice.Decision{}, &Error{Kind: InvalidArgument, Err: err}
	}
	d, err := s.choose(ctx, c.Configured)
	return c, d, err
}

func (s *Service) choose(ctx context.Context, c choice.Configured) (choice.Decision, error) {
	d, err := choice.Choose(c, s.Backends.Available(ctx, c))
	switch {
	case errors.Is(err, choice.ErrUnavailable):
		return d, &Error{Kind: BackendUnavailable, Err: err}
	case err != nil:
		return d, &Error{Kind: InvalidArgument, Err: err}
	}
	return d, nil
}

// decided says what was chosen, and why.
func (s *Service) decided(c choice.Configured, d choice.Decision) {
	configured := c.Own.Value
	if configured == "" {
		configured = choice.Auto
	}
	s.changeHost(func(h *Host) {
		h.Backend, h.ConfiguredBackend, h.BackendSource = d.Backend, configured, d.Source
		h.AvailableBackends = d.Available
	})
}

// configured keeps a configuration that is in force for the next start, or says
// why it is not the one in the files.
func (s *Service) configured(c Config, unusable error) {
	if unusable != nil {
		s.Log.Error("the configuration cannot be used; the last good one is in force, or the defaults where there is none", "error", unusable)
		s.noteHost(fromConfig, finding.Finding{
			ID: finding.ConfigurationUnusable, Summary: unusable.Error(), Remedy: "mend the file, then `virtfirewallctl reload`",
		})
		return
	}
	s.noteHost(fromConfig)
	if err := s.Settings.Remember(c); err != nil {
		s.Log.Warn("a start may not have the settings that are in force now", "error", err)
	}
}

// SetBackend chooses the backend and moves every network to it, or none. With
// Persistent the configuration says so from now on; else the next reload or
// restart reads what it says.
func (s *Service) SetBackend(ctx context.Context, backend string, o ChangeOptions) error {
	if !slices.Contains([]string{choice.Auto, choice.NFTables, choice.IPTables}, backend) {
		return errorf(InvalidArgument, "unknown backend %q: it is auto, nftables or iptables", backend)
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	c, err := s.Settings.Read()
	if err != nil {
		return &Error{Kind: InvalidArgument, Err: err}
	}
	c.Own = choice.Setting{Value: backend}
	d, err := s.choose(ctx, c.Configured)
	if err != nil {
		return err
	}
	persist := func() error { return nil }
	if o.Persistent { // what cannot be written must not be moved to
		put, drop, err := s.Settings.StageBackend(backend)
		if err != nil {
			return errorf(ApplyFailed, "writing the backend into the configuration: %w", err)
		}
		defer drop()
		persist = func() error {
			if err := put(); err != nil {
				return errorf(ApplyFailed, "writing the backend into the configuration: %w", err)
			}
			return nil
		}
	}
	if err := s.move(ctx, d.Backend, persist); err != nil {
		return err
	}
	if o.Persistent {
		// Where it says so now: the file and the line.
		if written, chosen, err := s.decide(ctx); err == nil {
			c, d = written, chosen
			s.configured(c, nil)
		}
	}
	s.decided(c.Configured, d)
	return nil
}

// move hands every network to a backend: its rules are there before those of
// the one before go, so that there is no instant without. What goes with the
// move is done last; where any of it fails all is as it was, and nobody is
// told. The caller holds the lock.
func (s *Service) move(ctx context.Context, name string, then func() error) error {
	old := s.active
	if old.Name() == name {
		return then()
	}
	next := s.Backends.Get(name)
	// What counters begin at in the new backend.
	if _, err := s.readCounters(ctx, 0); err != nil {
		return errorf(ApplyFailed, "reading the counters before moving to %s: %w", name, err)
	}
	undone := context.WithoutCancel(ctx)
	if _, err := next.Sync(ctx, s.members()); err != nil {
		return errors.Join(errorf(ApplyFailed, "putting the networks in force with %s: %w", name, err), next.RemoveAll(undone))
	}
	if err := old.RemoveAll(ctx); err != nil {
		return errors.Join(errorf(ApplyFailed, "taking the rules of %s out: %w", old.Name(), err), s.moveBack(undone, old, next))
	}
	s.activate(next)
	if err := then(); err != nil {
		return errors.Join(err, s.moveBack(undone, old, next))
	}
	s.moved(old)
	return nil
}

func (s *Service) moveBack(ctx context.Context, old, next backend.Backend) error {
	_, err := old.Sync(ctx, s.members())
	s.activate(old)
	if err != nil {
		return fmt.Errorf("going back to %s: %w", old.Name(), err)
	}
	return next.RemoveAll(ctx)
}

// moved tells of a move that was made.
func (s *Service) moved(old backend.Backend) {
	name := s.active.Name()
	var ts []transition
	for _, m := range s.registry.All() {
		if m.backend != name {
			next := *m
			next.backend = name
			ts = append(ts, transition{old: m, next: &next})
		}
	}
	s.publish(ts)
	s.noteRepairs()
	s.workers.checksums.trigger()
	s.workers.libvirt.trigger()
	details := []any{"from", old.Name(), "backend", name, "networks", len(s.registry.All())}
	if name == choice.IPTables {
		details = append(details, "variant", s.Backends.Variants().String())
	}
	s.Log.Info("moved every network to another backend", append(details, systemd.MessageID(systemd.MessageBackendChanged))...)
	if name == choice.IPTables {
		s.Log.Warn("iptables holds libvirt's own rules, which do not cover all that nftables does: isolated and device-bound networks reach routed ones, and IPv6 of networks that have none is not refused")
	}
}

// activate makes a backend the one that is asked from now on.
func (s *Service) activate(b backend.Backend) {
	s.counters.Lock()
	defer s.counters.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = b
	s.counters.value = nil
	s.repairs = repairs{}
	s.moving.trigger()
}
