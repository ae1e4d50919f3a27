package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

func (ex *exports) installZones(c *call) (work, error) {
	o, err := optionsOf(argument[map[string]godbus.Variant](c, 0), "Force")
	if err != nil {
		return work{}, err
	}
	return work{do: func(ctx context.Context) ([]any, error) {
		names, err := ex.api.InstallZones(ctx, o["Force"])
		return []any{stringList(names)}, err
	}}, nil
}

func (ex *exports) removeZones(c *call) (work, error) {
	o, err := optionsOf(argument[map[string]godbus.Variant](c, 0), "Force", "Unbind")
	if err != nil {
		return work{}, err
	}
	return work{do: func(ctx context.Context) ([]any, error) {
		names, err := ex.api.RemoveZones(ctx, zones.Removal{Force: o["Force"], Unbind: o["Unbind"]})
		return []any{stringList(names)}, err
	}}, nil
}

func (ex *exports) bindInterface(c *call) (work, error) {
	bridge, err := text("interface", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	zone, err := text("zone", argument[string](c, 1))
	if err != nil {
		return work{}, err
	}
	x := ex.zoneChange(bridge, zone)
	return work{requests: x.requests(x.before), do: func(ctx context.Context) ([]any, error) {
		bound, err := ex.api.BindInterface(ctx, bridge, zone, x.expect(c))
		return []any{clean(bound)}, err
	}}, nil
}

func (ex *exports) unbindInterface(c *call) (work, error) {
	bridge, err := text("interface", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	x := ex.zoneChange(bridge, "")
	return work{requests: x.requests(x.before), do: func(ctx context.Context) ([]any, error) {
		return nil, ex.api.UnbindInterface(ctx, bridge, x.expect(c))
	}}, nil
}

// zoneChange returns the change that moves a bridge to a zone by a call.
func (ex *exports) zoneChange(bridge, zone string) change {
	x := change{requests: func(before *service.Status) []authzRequest { return zoneRequests(bridge, zone, before) }}
	if st, ok := ex.byBridge(bridge); ok {
		x.before = &st
	}
	return x
}
