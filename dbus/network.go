package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func (ex *exports) update(c *call) (work, error) {
	settings, err := settingsOf(argument[map[string]godbus.Variant](c, 0))
	if err != nil {
		return work{}, err
	}
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 1), "Persistent")
	if err != nil {
		return work{}, err
	}
	name := c.object.name
	x := change{before: ex.before(name), requests: func(before *service.Status) []authzRequest {
		return networkRequests(name, before, updated(before, settings))
	}}
	o.Expect = x.expect(c)
	return work{requests: x.requests(x.before), do: func(ctx context.Context) ([]any, error) {
		return nil, ex.api.UpdateNetwork(ctx, name, settings, o)
	}}, nil
}

// updated returns the network after an update; nil for one that is not possible,
// which the service reports after the authorisation.
func updated(before *service.Status, settings map[string]any) *network.Network {
	if before == nil {
		return nil
	}
	n, err := before.Network.With(settings)
	if err != nil {
		return nil
	}
	return &n
}

func (ex *exports) getRuleset(c *call) (work, error) {
	name := c.object.name
	return work{do: func(ctx context.Context) ([]any, error) {
		text, err := ex.api.Ruleset(ctx, name)
		return []any{clean(text)}, err
	}}, nil
}

func (ex *exports) getCounters(c *call) (work, error) {
	name := c.object.name
	return work{do: func(ctx context.Context) ([]any, error) {
		totals, err := ex.api.Counters(ctx, name)
		return []any{totals}, err
	}}, nil
}
