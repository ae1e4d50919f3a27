package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// The kinds of Event.
const (
	EventNetworkAdded   = "network-added"
	EventNetworkRemoved = "network-removed"
	EventNetworkChanged = "network-changed"
	EventHostChanged    = "host-changed"
	EventBackendChanged = "backend-changed"
	EventRepaired       = "repaired"
	EventServiceStarted = "service-started"
	EventServiceStopped = "service-stopped"
)

// Event is one thing that happened to the service or its networks.
type Event struct {
	Time    time.Time      `json:"time"`
	Event   string         `json:"event"`
	Network string         `json:"network,omitempty"`
	Cause   string         `json:"cause,omitempty"`   // of a repair
	Old     string         `json:"old,omitempty"`     // backend
	New     string         `json:"new,omitempty"`     // backend
	Changed map[string]any `json:"changed,omitempty"` // properties by name
	// Invalidated are properties that changed, without their new values.
	Invalidated []string `json:"invalidated,omitempty"`
}

// Properties returns the names of the changed properties, sorted.
func (e Event) Properties() []string { return slices.Sorted(maps.Keys(e.Changed)) }

// Monitor calls handle with each event in the order in which they happened,
// until ctx ends, handle fails or the bus goes away.
func (c *Client) Monitor(ctx context.Context, handle func(Event) error) error {
	// Signals that arrive faster than handle returns wait in order: the sequential
	// signal handler has an unbounded queue in front of this channel.
	signals := make(chan *dbus.Signal, 64)
	c.conn.Signal(signals)
	defer c.conn.RemoveSignal(signals)
	err := c.subscribe(ctx)
	if err == nil {
		_, err = c.Host(ctx) // fails if the service does not run
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-signals:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return unreachable("watching the service: the connection to the system bus is closed")
			}
			if e, ok := event(s); ok {
				if err := handle(e); err != nil {
					return err
				}
			}
		}
	}
}

func (c *Client) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.limit(ReadTimeout))
	defer cancel()
	matches := [][]dbus.MatchOption{
		{dbus.WithMatchSender(BusName), dbus.WithMatchPathNamespace(ManagerPath)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, BusName)},
	}
	for _, m := range matches {
		if err := c.conn.AddMatchSignalContext(ctx, m...); err != nil {
			return fmt.Errorf("watching the service: %w", explain("AddMatch", err))
		}
	}
	return nil
}

// event returns a signal's event; ok is false for signals that have none.
func event(s *dbus.Signal) (e Event, ok bool) {
	e.Time = time.Now()
	switch s.Name {
	case ManagerInterface + ".NetworkAdded":
		e.Event = EventNetworkAdded
		return e, dbus.Store(s.Body, &e.Network, new(dbus.ObjectPath)) == nil
	case ManagerInterface + ".NetworkRemoved":
		e.Event = EventNetworkRemoved
		return e, dbus.Store(s.Body, &e.Network, new(dbus.ObjectPath)) == nil
	case ManagerInterface + ".BackendChanged":
		e.Event = EventBackendChanged
		return e, dbus.Store(s.Body, &e.Old, &e.New) == nil
	case ManagerInterface + ".Repaired":
		e.Event = EventRepaired
		return e, dbus.Store(s.Body, &e.Network, &e.Cause) == nil
	case propertiesIface + ".PropertiesChanged":
		return propertiesEvent(e, s)
	case "org.freedesktop.DBus.NameOwnerChanged":
		return ownerEvent(e, s)
	}
	return e, false
}

func propertiesEvent(e Event, s *dbus.Signal) (Event, bool) {
	var iface string
	var changed map[string]dbus.Variant
	if dbus.Store(s.Body, &iface, &changed, &e.Invalidated) != nil {
		return e, false
	}
	switch iface {
	case NetworkInterface:
		e.Event, e.Network = EventNetworkChanged, nameOf(s.Path)
	case ManagerInterface:
		e.Event = EventHostChanged
	default:
		return e, false
	}
	e.Changed = make(map[string]any, len(changed))
	for name, v := range changed {
		e.Changed[name] = plain(v.Value())
	}
	return e, true
}

func ownerEvent(e Event, s *dbus.Signal) (Event, bool) {
	var name, old, now string
	if dbus.Store(s.Body, &name, &old, &now) != nil || name != BusName {
		return e, false
	}
	e.Event = EventServiceStarted
	if now == "" {
		e.Event = EventServiceStopped
	}
	return e, true
}

// plain replaces the variants in a value by their values, so that it prints as JSON.
func plain(v any) any {
	switch v := v.(type) {
	case dbus.Variant:
		return plain(v.Value())
	case map[string]dbus.Variant:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = plain(inner)
		}
		return out
	case []map[string]dbus.Variant:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = plain(inner)
		}
		return out
	}
	return v
}
