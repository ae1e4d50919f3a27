package zones

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// EventKind is what happened to firewalld.
type EventKind int

// The kinds. After Appeared, Vanished and Reloaded all runtime bindings are
// gone, except those that NetworkManager keeps.
const (
	Appeared       EventKind = iota + 1 // firewalld came onto the bus
	Vanished                            // firewalld left the bus
	Reloaded                            // firewalld read its configuration again
	BindingChanged                      // an interface changed its zone
)

func (k EventKind) String() string {
	switch k {
	case Appeared:
		return "appeared"
	case Vanished:
		return "vanished"
	case Reloaded:
		return "reloaded"
	case BindingChanged:
		return "binding changed"
	}
	return fmt.Sprintf("EventKind(%d)", int(k))
}

// Event is one thing that happened to firewalld. For BindingChanged it holds
// the interface and its new zone, "" for none; an empty Interface means that any
// binding may have changed. The client's own calls cause events too.
type Event struct {
	Kind      EventKind
	Interface string
	Zone      string
}

// Watch watches firewalld until ctx ends, or the connection does; then it closes
// the channel, and nothing is left running. Events that nobody has received yet
// are replaced by those that supersede them, so that a slow reader gets the
// latest, and a burst costs no memory. While a watch runs, Running, Installed,
// Zones and Backend answer from memory.
func (c *Client) Watch(ctx context.Context) (<-chan Event, error) {
	w := &watch{client: c, signals: make(chan *dbus.Signal, 64), events: make(chan Event)}
	c.conn.Signal(w.signals)
	if err := w.start(ctx); err != nil {
		w.stop(ctx)
		return nil, fmt.Errorf("watching firewalld: %w", err)
	}
	c.mu.Lock()
	c.known.watches++
	c.known.generation++
	c.known.running, c.known.life = w.owner != "", w.life()
	c.mu.Unlock()
	go w.run(ctx)
	return w.events, nil
}

type watch struct {
	client  *Client
	signals chan *dbus.Signal
	events  chan Event
	matches [][]dbus.MatchOption
	bus     string // the bus's own ID
	owner   string // firewalld's unique name, "" while it is not on the bus
	pending []Event
}

// start subscribes first, and gets the owner after that: a change in between
// comes as a signal.
func (w *watch) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.client.timeout)
	defer cancel()
	matches := [][]dbus.MatchOption{
		{dbus.WithMatchSender(busInterface), dbus.WithMatchInterface(busInterface),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)},
		firewalldSignal(rootInterface, "Reloaded"),
		firewalldSignal(zoneInterface, "InterfaceAdded"),
		firewalldSignal(zoneInterface, "InterfaceRemoved"),
		firewalldSignal(zoneInterface, "ZoneOfInterfaceChanged"),
		firewalldSignal(zoneInterface, "ZoneUpdated"),
	}
	for _, m := range matches {
		if err := w.client.conn.AddMatchSignalContext(ctx, m...); err != nil {
			return fmt.Errorf("subscribing to its signals: %w", err)
		}
		w.matches = append(w.matches, m)
	}
	if err := w.client.conn.BusObject().CallWithContext(ctx, busInterface+".GetId", 0).Store(&w.bus); err != nil {
		return fmt.Errorf("asking the bus for its ID: %w", err)
	}
	var err error
	w.owner, err = w.client.owner(ctx)
	return err
}

// life identifies the run of firewalld: a bus never assigns a unique name twice.
func (w *watch) life() string {
	if w.owner == "" {
		return ""
	}
	return w.bus + w.owner
}

func firewalldSignal(iface, member string) []dbus.MatchOption {
	return []dbus.MatchOption{
		dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(rootPath),
		dbus.WithMatchInterface(iface), dbus.WithMatchMember(member),
	}
}

// stop undoes start; ctx may have ended.
func (w *watch) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.client.timeout)
	defer cancel()
	for _, m := range w.matches {
		// An error means a closed connection, which has no subscriptions left.
		_ = w.client.conn.RemoveMatchSignalContext(ctx, m...)
	}
	w.client.conn.RemoveSignal(w.signals)
	close(w.events)
}

func (w *watch) run(ctx context.Context) {
	defer w.stop(ctx)
	defer w.client.unwatch()
	for {
		var out chan<- Event
		var next Event
		if len(w.pending) > 0 {
			out, next = w.events, w.pending[0]
		}
		select {
		case <-ctx.Done():
			return
		case out <- next:
			w.pending = w.pending[1:]
		case s, ok := <-w.signals:
			if !ok {
				if ctx.Err() == nil { // else both ended, in whatever order
					w.client.log.Warn("the connection to the bus is closed, firewalld is no longer watched")
				}
				return
			}
			w.observe(s)
		}
	}
}

func (c *Client) unwatch() {
	c.forget()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.watches--
}

// observe handles a signal. The connection has other users, and anyone may send
// it a signal directly: only the bus and firewalld itself are trusted.
func (w *watch) observe(s *dbus.Signal) {
	if s.Sender == busInterface && s.Name == busInterface+".NameOwnerChanged" {
		var name, before, after string
		if dbus.Store(s.Body, &name, &before, &after) == nil && name == busName && after != w.owner {
			w.changeOwner(after)
		}
		return
	}
	if s.Sender != w.owner || s.Path != rootPath {
		return
	}
	var zone, iface string
	switch s.Name {
	case rootInterface + ".Reloaded":
		w.client.forget()
		w.push(Event{Kind: Reloaded})
	case zoneInterface + ".InterfaceAdded", zoneInterface + ".ZoneOfInterfaceChanged":
		if dbus.Store(s.Body, &zone, &iface) == nil {
			w.push(Event{Kind: BindingChanged, Interface: iface, Zone: zone})
		}
	case zoneInterface + ".InterfaceRemoved":
		if dbus.Store(s.Body, &zone, &iface) == nil {
			w.push(Event{Kind: BindingChanged, Interface: iface})
		}
	case zoneInterface + ".ZoneUpdated":
		w.push(Event{Kind: BindingChanged})
	}
}

func (w *watch) changeOwner(owner string) {
	vanished := w.owner != ""
	w.owner = owner
	w.client.forget()
	w.client.responses.reset()
	w.client.mu.Lock()
	w.client.known.running, w.client.known.life = owner != "", w.life()
	w.client.mu.Unlock()
	if vanished {
		w.push(Event{Kind: Vanished})
	}
	if owner != "" {
		w.push(Event{Kind: Appeared})
	}
}

// push queues an event in place of those that it supersedes.
func (w *watch) push(e Event) {
	kept := w.pending[:0:0]
	for _, p := range w.pending {
		if !e.supersedes(p) {
			kept = append(kept, p)
		}
	}
	w.pending = append(kept, e)
}

func (e Event) supersedes(p Event) bool {
	switch e.Kind {
	case Vanished:
		return true
	case Appeared, Reloaded:
		return p.Kind == e.Kind || p.Kind == BindingChanged
	}
	return p.Kind == BindingChanged && (e.Interface == "" || p.Interface == e.Interface)
}
