package service

import (
	"context"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
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
	if backend == "" {
		backend = s.backend().Name()
	}
	if backend != choice.NFTables && backend != choice.IPTables {
		return "", errorf(InvalidArgument, "unknown backend %q: it is nftables or iptables", backend)
	}
	if err := s.admitBeside(n); err != nil {
		return "", err
	}
	b, err := s.look(n.Bridge, 0, byNobody)
	if err == nil {
		err = s.refusal(n.Bridge, b)
	}
	if err != nil {
		return "", err
	}
	n.Devices, _ = s.resolve(n.Devices)
	part, ok := ruleset.Compile(n, b.index)
	if !ok {
		return fmt.Sprintf("# network %s is open: it has no rules, the host's own decide\n", n.Name), nil
	}
	if backend == choice.IPTables {
		if err := iptables.Check(n); err != nil {
			return "", &Error{Kind: InvalidArgument, Err: err}
		}
		return iptables.Text(n), nil
	}
	return ruleset.Text(ruleset.Base(), part), nil
}

// Ruleset is what the kernel holds for the network.
func (s *Service) Ruleset(ctx context.Context, name string) (string, error) {
	m, err := s.known(name)
	if err != nil {
		return "", err
	}
	if !m.hasRules {
		return fmt.Sprintf("# network %s has no rules\n", name), nil
	}
	text, err := s.backend().Text(ctx, name)
	if err != nil {
		return "", errorf(ApplyFailed, "listing the rules of network %q: %w", name, err)
	}
	if text == "" {
		return "", errorf(ApplyFailed, "the rules of network %q are not in the kernel: reapply puts them back", name)
	}
	return text, nil
}
