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
func (rs *rules) backend() backend.Backend {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.active
}

// backendChooser chooses the backend by the configuration and by what the host has.
type backendChooser struct {
	settings Settings
	backends Backends
	networks *networks
	log      logger
}

// decide reads the configuration, probes the host and chooses. A configured
// backend that does not work is an error and never replaced in silence.
func (b *backendChooser) decide(ctx context.Context) (Config, choice.Decision, error) {
	c, err := b.settings.Read()
	if err != nil {
		return c, choice.Decision{}, &Error{Kind: InvalidArgument, Err: err}
	}
	d, err := b.choose(ctx, c.Configured)
	return c, d, err
}

func (b *backendChooser) choose(ctx context.Context, c choice.Configured) (choice.Decision, error) {
	d, err := choice.Choose(c, b.backends.Available(ctx, c))
	switch {
	case errors.Is(err, choice.ErrUnavailable):
		return d, &Error{Kind: BackendUnavailable, Err: err}
	case err != nil:
		return d, &Error{Kind: InvalidArgument, Err: err}
	}
	return d, nil
}

// decided says what was chosen, and why.
func (b *backendChooser) decided(c choice.Configured, d choice.Decision) {
	configured := c.Own.Value
	if configured == "" {
		configured = choice.Auto
	}
	b.networks.changeHost(func(h *Host) {
		h.Backend, h.ConfiguredBackend, h.BackendSource = d.Backend, configured, d.Source
		h.AvailableBackends = d.Available
	})
}

// configured keeps a configuration that is in force for the next start, or says
// why it is not the one in the files.
func (b *backendChooser) configured(c Config, unusable error) {
	if unusable != nil {
		b.log.Error("the configuration cannot be used; the last good one is in force, or the defaults where there is none", "error", unusable)
		b.networks.noteHost(fromConfig, finding.Finding{
			ID: finding.ConfigurationUnusable, Summary: unusable.Error(), Remedy: "mend the file, then `virtfirewallctl reload`",
		})
		return
	}
	b.networks.noteHost(fromConfig)
	if err := b.settings.Remember(c); err != nil {
		b.log.Warn("a start may not have the settings that are in force now", "error", err)
	}
}

// SetBackend chooses the backend and moves every network to it, or none. With
// Persistent the configuration says so from now on; else the next reload or
// restart reads what it says.
func (s *Service) SetBackend(ctx context.Context, backend string, o ChangeOptions) error {
	if !slices.Contains([]string{choice.Auto, choice.NFTables, choice.IPTables}, backend) {
		return errorf(InvalidArgument, "unknown backend %q: it is auto, nftables or iptables", backend)
	}
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	c, err := s.settings.Read()
	if err != nil {
		return &Error{Kind: InvalidArgument, Err: err}
	}
	c.Own = choice.Setting{Value: backend}
	d, err := s.chooser.choose(ctx, c.Configured)
	if err != nil {
		return err
	}
	persist := func() error { return nil }
	if o.Persistent { // what cannot be written must not be moved to
		put, drop, err := s.settings.StageBackend(backend)
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
	if err := s.rules.move(ctx, d.Backend, persist); err != nil {
		return err
	}
	if o.Persistent {
		// Where it says so now: the file and the line.
		if written, chosen, err := s.chooser.decide(ctx); err == nil {
			c, d = written, chosen
			s.chooser.configured(c, nil)
		}
	}
	s.chooser.decided(c.Configured, d)
	return nil
}

// move hands every network to a backend: its rules are there before those of
// the one before go, so that there is no instant without. What goes with the
// move is done last; where any of it fails all is as it was, and nothing is
// reported. The caller holds the change lock.
func (rs *rules) move(ctx context.Context, name string, then func() error) error {
	old := rs.active
	if old.Name() == name {
		return then()
	}
	next := rs.backends.Get(name)
	// What counters begin at in the new backend.
	if _, err := rs.counters.read(ctx, 0); err != nil {
		return errorf(ApplyFailed, "reading the counters before moving to %s: %w", name, err)
	}
	undone := context.WithoutCancel(ctx)
	if _, err := rs.syncTo(ctx, next); err != nil {
		return errors.Join(errorf(ApplyFailed, "putting the networks in force with %s: %w", name, err), next.RemoveAll(undone))
	}
	if err := old.RemoveAll(ctx); err != nil {
		return errors.Join(errorf(ApplyFailed, "taking the rules of %s out: %w", old.Name(), err), rs.moveBack(undone, old, next))
	}
	rs.activate(next)
	if err := then(); err != nil {
		return errors.Join(err, rs.moveBack(undone, old, next))
	}
	rs.moved(old)
	return nil
}

func (rs *rules) moveBack(ctx context.Context, old, next backend.Backend) error {
	_, err := rs.syncTo(ctx, old)
	rs.activate(old)
	if err != nil {
		return fmt.Errorf("going back to %s: %w", old.Name(), err)
	}
	return next.RemoveAll(ctx)
}

// moved reports a move that was made.
func (rs *rules) moved(old backend.Backend) {
	name := rs.active.Name()
	var ts []transition
	for _, m := range rs.networks.All() {
		if m.backend != name {
			next := *m
			next.backend = name
			ts = append(ts, transition{old: m, next: &next})
		}
	}
	rs.networks.publish(ts)
	rs.noteFindings()
	rs.workers.checksums.trigger()
	rs.workers.libvirt.trigger()
	rs.workers.foreign.trigger()
	details := []any{"from", old.Name(), "backend", name, "networks", len(rs.networks.All())}
	if name == choice.IPTables {
		details = append(details, "variant", rs.backends.Variants().String())
	}
	rs.log.Info("moved every network to another backend", append(details, systemd.MessageID(systemd.MessageBackendChanged))...)
	if name == choice.IPTables {
		rs.log.Warn("iptables holds libvirt's own rules, which do not cover all that nftables does: isolated and device-bound networks reach routed ones, and IPv6 of networks that have none is not refused")
	}
}

// activate makes a backend the one that is asked from now on.
func (rs *rules) activate(b backend.Backend) {
	rs.counters.during(func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.active = b
	})
	rs.repairs = repairs{}
	rs.moving.trigger()
}
