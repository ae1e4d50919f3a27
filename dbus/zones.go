package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

func (s *Server) installZones(c *call) (work, error) {
	o, err := optionsOf(argument[map[string]godbus.Variant](c, 0), "Force")
	if err != nil {
		return work{}, err
	}
	return work{do: func(ctx context.Context) ([]any, error) {
		zones, err := s.api.InstallZones(ctx, o["Force"])
		return []any{stringList(zones)}, err
	}}, nil
}

func (s *Server) removeZones(c *call) (work, error) {
	o, err := optionsOf(argument[map[string]godbus.Variant](c, 0), "Unbind")
	if err != nil {
		return work{}, err
	}
	return work{do: func(ctx context.Context) ([]any, error) {
		zones, err := s.api.RemoveZones(ctx, o["Unbind"])
		return []any{stringList(zones)}, err
	}}, nil
}

func (s *Server) bindInterface(c *call) (work, error) {
	bridge, err := text("interface", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	zone, err := text("zone", argument[string](c, 1))
	if err != nil {
		return work{}, err
	}
	x := s.zoneChange(bridge, zone)
	return work{asks: x.asks(x.before), do: func(ctx context.Context) ([]any, error) {
		bound, err := s.api.BindInterface(ctx, bridge, zone, x.expect(c))
		return []any{clean(bound)}, err
	}}, nil
}

func (s *Server) unbindInterface(c *call) (work, error) {
	bridge, err := text("interface", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	x := s.zoneChange(bridge, "")
	return work{asks: x.asks(x.before), do: func(ctx context.Context) ([]any, error) {
		return nil, s.api.UnbindInterface(ctx, bridge, x.expect(c))
	}}, nil
}

// zoneChange is a bridge's move to a zone by hand.
func (s *Server) zoneChange(bridge, zone string) change {
	x := change{asks: func(before *service.Status) []ask { return zoneAsks(bridge, zone, before) }}
	if st, ok := s.byBridge(bridge); ok {
		x.before = &st
	}
	return x
}
