package service

import (
	"context"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// hostState is what is known of the host.
type hostState struct {
	Host
	noted map[source][]finding.Finding // of no network, by who found them
}

// HostStatus is the service as a whole.
func (s *Service) HostStatus() Host {
	return s.registry.Host().Host
}

// changeHost changes what the service says of itself and tells of it.
func (s *Service) changeHost(f func(*Host)) {
	s.registry.EditHost(func(h hostState) hostState {
		f(&h.Host)
		return h
	}, func(old, next hostState) {
		if !equalHost(old.Host, next.Host) {
			s.Notify(HostChanged{Old: old.Host, New: next.Host})
		}
	})
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
