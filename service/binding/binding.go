// Package binding keeps the bridges of networks in firewalld's zones. It knows a
// network by what matters to firewalld alone, a Bridge, and reaches all networks
// through Networks.
//
// firewalld may take seconds for an answer, or never answer. One session with
// it is held at a time, so that no caller undoes what another is doing; nothing here
// waits for firewalld while it holds a lock of the caller's.
package binding

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// Bridge is what matters of a network to firewalld: an immutable value.
type Bridge struct {
	Network string       // the network's name
	Name    string       // of the bridge, as the network is configured
	Iface   string       // the name that the bridge's link has now
	Stray   bool         // the link of that name is not the network's bridge
	Mode    network.Mode // which calls for a zone
	Zone    string       // that the network names; "" for what its mode calls for
	State   State
}

// Change is one network's way from what it was to what it shall be. Old is nil for
// a new network, Next for one that goes.
type Change struct {
	Old, Next *Bridge
	// Asked says that the caller has just named a zone, so that a bridge which
	// cannot enter it fails the change.
	Asked bool
	// Stays says that the bridge is left in its zone although the network goes.
	Stays bool
}

// Networks is what a Binder needs of the service.
type Networks interface {
	// Bridges returns the bridges of the networks of these names, nil for all, in no
	// order.
	Bridges(networks []string) []Bridge
	// Update replaces the states of the networks of these names, nil for all, by
	// what next returns for each as it is then; ok is false for no change.
	Update(ctx context.Context, networks []string, next func(Bridge) (s State, ok bool))
	// Released takes out the rules that hold for an interface until it has left its
	// zone, which it has. It reports whether they are gone.
	Released(ctx context.Context, iface string) bool
}

// Zones is firewalld. Errors are those of package zones.
type Zones interface {
	// Installed returns what firewalld has; it never starts firewalld.
	Installed(ctx context.Context) (zones.Installed, error)
	// Interfaces returns every interface that a zone has, with the zone.
	Interfaces(ctx context.Context) (map[string]string, error)
	// BindAll returns an error for each binding, in their order.
	BindAll(ctx context.Context, bindings []zones.Binding) []error
	// Unbind takes an interface out of a zone, "" for whichever it is in.
	Unbind(ctx context.Context, zone, iface string) error
	// Unanswered returns for how long firewalld has not answered.
	Unanswered() time.Duration
	// Answer returns nil once firewalld answers.
	Answer(ctx context.Context) error
}

// Config is what a Binder works with; all of it is required.
type Config struct {
	Zones    Zones
	Records  Records
	Networks Networks
	Log      *slog.Logger
}

// Binder binds bridges to their zones. Its methods may be called from any
// goroutine.
type Binder struct {
	cfg Config
	// session holds the one token of a session with firewalld. It is waited for
	// before the caller's own locks, never while one is held.
	session chan struct{}
	// outside says that a bridge may be outside its zone.
	outside chan struct{}

	mu sync.Mutex
	// pending are the zones that interfaces have to go to once firewalld answers,
	// "" for none: it did not when it was asked.
	pending map[string]string
}

// New returns a Binder of no pending interfaces.
func New(cfg Config) *Binder {
	return &Binder{cfg: cfg, session: make(chan struct{}, 1), outside: make(chan struct{}, 1), pending: map[string]string{}}
}

// Postpone notes that an interface has to go into a zone, "" for none, once
// firewalld answers: it may yet do what a failed change asked for.
func (b *Binder) Postpone(iface, zone string) {
	b.mu.Lock()
	b.pending[iface] = zone
	b.mu.Unlock()
	b.Retry()
}

// Pending returns the zones that interfaces have yet to go to, "" for none.
func (b *Binder) Pending() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.pending)
}

func (b *Binder) isPending(iface string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.pending[iface]
	return ok
}

// done forgets what was postponed, unless firewalld fell silent again.
func (b *Binder) done(iface string, s *Session) {
	if s.err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pending, iface)
}

// Retry has bridges that are outside their zones tried again soon.
func (b *Binder) Retry() {
	select {
	case b.outside <- struct{}{}:
	default:
	}
}
