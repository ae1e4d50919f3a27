package service

import (
	"context"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// HostStatus is the service as a whole.
func (s *Service) HostStatus() Host {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.host
}

// changeHost changes what the service says of itself and tells of it.
func (s *Service) changeHost(f func(*Host)) {
	s.mu.Lock()
	old := s.host
	next := old
	f(&next)
	s.host = next
	s.mu.Unlock()
	if !equalHost(old, next) {
		s.Notify(HostChanged{Old: old, New: next})
	}
}

func equalHost(a, b Host) bool {
	return a.Version == b.Version && a.Backend == b.Backend && a.ConfiguredBackend == b.ConfiguredBackend &&
		a.BackendSource == b.BackendSource && slices.Equal(a.AvailableBackends, b.AvailableBackends) &&
		a.FirewalldRunning == b.FirewalldRunning && a.FirewalldBackend == b.FirewalldBackend &&
		slices.Equal(a.InstalledZones, b.InstalledZones)
}

// Preview is what AddNetwork would put into the kernel. It changes nothing.
func (s *Service) Preview(_ context.Context, n network.Network, backend string) (string, error) {
	if err := backendKnown(backend); err != nil {
		return "", err
	}
	if err := s.admitBeside(n); err != nil {
		return "", err
	}
	b, err := s.look(n.Bridge, 0)
	if err != nil {
		return "", err
	}
	if b.refused != "" {
		return "", errorf(InvalidArgument, "%s", b.refused)
	}
	part, ok := ruleset.Compile(n, b.index)
	if !ok {
		return fmt.Sprintf("# network %s is open: it has no rules, the host's own decide\n", n.Name), nil
	}
	return ruleset.Text(ruleset.Base(), part), nil
}

// backendKnown accepts the backend of this version; "" means the active one.
func backendKnown(backend string) error {
	switch backend {
	case "", backendName:
		return nil
	case "iptables":
		return errorf(NotSupported, "this version has no iptables backend: use %q", backendName)
	}
	return errorf(InvalidArgument, "unknown backend %q: it is auto, nftables or iptables", backend)
}

// SetBackend chooses the backend; with Persistent the configuration says so
// from now on.
func (s *Service) SetBackend(ctx context.Context, backend string, o ChangeOptions) error {
	if backend == "" {
		return errorf(InvalidArgument, "no backend named: it is auto, nftables or iptables")
	}
	if backend != backendAuto {
		if err := backendKnown(backend); err != nil {
			return err
		}
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	source := "chosen by a call, until the next reload or restart"
	if o.Persistent {
		if err := s.Settings.SetBackend(backend); err != nil {
			return errorf(ApplyFailed, "writing the backend into the configuration: %w", err)
		}
		return s.readSettings()
	}
	s.changeHost(func(h *Host) { h.ConfiguredBackend, h.BackendSource = backend, source })
	return nil
}

// readSettings reads the configuration and takes what it says.
func (s *Service) readSettings() error {
	c, err := s.settings()
	if err != nil {
		return err
	}
	s.configure(c)
	return nil
}

// settings reads and checks the configuration.
func (s *Service) settings() (Config, error) {
	c, err := s.Settings.Read()
	if err != nil {
		return c, &Error{Kind: InvalidArgument, Err: err}
	}
	if c.Backend != backendAuto {
		if err := backendKnown(c.Backend); err != nil {
			return c, errorf(BackendUnavailable, "%s: %w", c.Source, err)
		}
	}
	return c, nil
}

func (s *Service) configure(c Config) {
	s.changeHost(func(h *Host) { h.ConfiguredBackend, h.BackendSource = c.Backend, c.Source })
}

// Ruleset is what the kernel holds for the network.
func (s *Service) Ruleset(_ context.Context, name string) (string, error) {
	m, err := s.known(name)
	if err != nil {
		return "", err
	}
	if !m.hasRules {
		return fmt.Sprintf("# network %s has no rules\n", name), nil
	}
	part, ok := s.Rules.Installed(name)
	if !ok {
		return "", errorf(ApplyFailed, "the rules of network %q are not in the kernel: reapply puts them back", name)
	}
	return ruleset.Text(ruleset.SetsOf(ruleset.Base(), part), part), nil
}
