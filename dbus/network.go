package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func (s *Server) update(c *call) (work, error) {
	settings, err := settingsOf(argument[map[string]godbus.Variant](c, 0))
	if err != nil {
		return work{}, err
	}
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 1), "Persistent")
	if err != nil {
		return work{}, err
	}
	name := c.object.name
	return work{details: s.detailsByName(name), do: func(ctx context.Context) ([]any, error) {
		return nil, s.api.UpdateNetwork(ctx, name, settings, o)
	}}, nil
}

func (s *Server) getRuleset(c *call) (work, error) {
	name := c.object.name
	return work{do: func(ctx context.Context) ([]any, error) {
		text, err := s.api.Ruleset(ctx, name)
		return []any{clean(text)}, err
	}}, nil
}

func (s *Server) getCounters(c *call) (work, error) {
	name := c.object.name
	return work{do: func(ctx context.Context) ([]any, error) {
		totals, err := s.api.Counters(ctx, name)
		return []any{totals}, err
	}}, nil
}

// networkDetails are what an Authorizer is told of a network.
func networkDetails(n network.Network) map[string]string {
	return map[string]string{
		"network":      n.Name,
		"bridge":       n.Bridge,
		"forward_mode": string(n.Mode),
		"zone":         n.Zone,
	}
}

func (s *Server) detailsByName(name string) map[string]string {
	if st, ok := s.api.NetworkStatus(name); ok {
		return networkDetails(st.Network)
	}
	return map[string]string{"network": name}
}

func (s *Server) detailsByBridge(bridge string) map[string]string {
	if st, ok := s.byBridge(bridge); ok {
		return networkDetails(st.Network)
	}
	return map[string]string{"bridge": bridge}
}
