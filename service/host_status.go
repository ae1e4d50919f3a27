package service

import (
	"context"
	"fmt"

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
	return s.networks.Host().Host
}

// Preview is what AddNetwork would put into the kernel. It changes nothing.
func (s *Service) Preview(_ context.Context, n network.Network, backend string) (string, error) {
	if backend == "" {
		backend = s.rules.backend().Name()
	}
	if backend != choice.NFTables && backend != choice.IPTables {
		return "", errorf(InvalidArgument, "unknown backend %q: it is nftables or iptables", backend)
	}
	if err := s.view.admitBeside(n); err != nil {
		return "", err
	}
	b, err := s.view.look(n.Bridge, 0, byNobody)
	if err == nil {
		err = s.view.refusal(n.Bridge, b)
	}
	if err != nil {
		return "", err
	}
	n.Devices, _ = s.view.resolve(n.Devices)
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
	return ruleset.Text(ruleset.Base(ruleset.Interface{}), part), nil
}

// Ruleset is what the kernel holds for the network.
func (s *Service) Ruleset(ctx context.Context, name string) (string, error) {
	m, err := s.networks.known(name)
	if err != nil {
		return "", err
	}
	if !m.hasRules {
		return fmt.Sprintf("# network %s has no rules\n", name), nil
	}
	text, err := s.rules.backend().Text(ctx, name)
	if err != nil {
		return "", errorf(ApplyFailed, "listing the rules of network %q: %w", name, err)
	}
	if text == "" {
		return "", errorf(ApplyFailed, "the rules of network %q are not in the kernel: reapply puts them back", name)
	}
	return text, nil
}
