package zones

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Bind puts an interface into a zone, out of whichever other one it is in,
// until firewalld's next reload. The interface need not exist: firewalld
// binds names. A zone that firewalld lacks is ErrZoneNotFound.
func (c *Client) Bind(ctx context.Context, iface, zone string) (bound string, err error) {
	err = c.call(ctx, rootPath, zoneInterface+".changeZoneOfInterface", []any{zone, iface}, &bound)
	switch {
	case err == nil:
		return bound, nil
	case hasCode(err, "ZONE_ALREADY_SET"):
		return zone, nil
	case hasCode(err, "INVALID_ZONE"):
		err = ErrZoneNotFound{Zone: zone}
	}
	return "", fmt.Errorf("binding %s to zone %s: %w", iface, zone, err)
}

// Unbind takes an interface out of a zone, or for zone "" out of whichever one
// it is in. It is no error if the interface is not in the zone, or no longer
// exists; one in another zone stays there.
func (c *Client) Unbind(ctx context.Context, zone, iface string) error {
	var was string
	err := c.call(ctx, rootPath, zoneInterface+".removeInterface", []any{zone, iface}, &was)
	if hasCode(err, "UNKNOWN_INTERFACE", "NOT_ENABLED", "ZONE_CONFLICT", "INVALID_ZONE") {
		return nil
	}
	return wrap("unbinding "+iface, err)
}

// Interfaces returns all interfaces that are in a zone, with the zone's name.
func (c *Client) Interfaces(ctx context.Context) (map[string]string, error) {
	var active map[string]map[string][]string
	err := c.call(ctx, rootPath, zoneInterface+".getActiveZones", nil, &active)
	if err != nil {
		return nil, fmt.Errorf("listing bound interfaces: %w", err)
	}
	bound := make(map[string]string)
	for zone, members := range active {
		for _, iface := range members["interfaces"] {
			bound[iface] = zone
		}
	}
	return bound, nil
}

// Binding is an interface and the zone that it belongs in.
type Binding struct{ Interface, Zone string }

// BindAll binds many interfaces without waiting for each answer before the next
// call. The errors are in the order of the bindings, nil for success. If
// firewalld dies or does not answer in time, BindAll stops: the bindings that
// are left get the error that stopped it.
func (c *Client) BindAll(ctx context.Context, bindings []Binding) []error {
	errs := make([]error, len(bindings))
	var end atomic.Pointer[error]
	_ = inParallel(len(bindings), func(i int) error { // each error is kept in errs
		if cause := end.Load(); cause != nil {
			errs[i] = *cause
			return nil
		}
		_, errs[i] = c.Bind(ctx, bindings[i].Interface, bindings[i].Zone)
		if errors.Is(errs[i], ErrNotRunning) || IsSilence(errs[i]) {
			end.CompareAndSwap(nil, &errs[i])
		}
		return nil
	})
	return errs
}
