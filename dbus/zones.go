package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"
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
	details := s.detailsByBridge(bridge)
	details["zone"] = zone
	return work{details: details, do: func(ctx context.Context) ([]any, error) {
		bound, err := s.api.BindInterface(ctx, bridge, zone)
		return []any{clean(bound)}, err
	}}, nil
}

func (s *Server) unbindInterface(c *call) (work, error) {
	bridge, err := text("interface", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	return work{details: s.detailsByBridge(bridge), do: func(ctx context.Context) ([]any, error) {
		return nil, s.api.UnbindInterface(ctx, bridge)
	}}, nil
}
