package service

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// Backends finds the backends of the host.
type Backends interface {
	// Available probes what the host has, given what is configured.
	Available(ctx context.Context, c choice.Configured) choice.Available
	Get(name string) backend.Backend
	// Variants are those of iptables that the backend of that name uses.
	Variants() xtables.Variants
}

// Links is the host's interfaces.
type Links interface {
	// Query asks the kernel itself.
	Query(name string) (link watch.Link, ok bool, err error)
	QueryIndex(index int) (link watch.Link, ok bool, err error)
	// Sync returns when all that happened before the call is in the picture.
	Sync(ctx context.Context) error
	Changes() <-chan watch.Change

	// What the link monitor knows, a moment after the kernel:
	LinkByIndex(index int) (watch.Link, bool)
	Links() []watch.Link
	// LinkByName takes own and alternative names.
	LinkByName(name string) (watch.Link, bool)
	Addresses() []watch.Address
	DefaultRoutes() []watch.Route
}

// FirewalldProcess is firewalld as a whole.
type FirewalldProcess interface {
	Backend(ctx context.Context) (string, error)
	// Install and Remove put the service's zones in and take them out, and
	// reload firewalld where that changes something; managed are bridges whose
	// bindings need not be kept, for the service puts them back.
	Install(ctx context.Context, force bool, managed []string) ([]string, error)
	Remove(ctx context.Context, o zones.Removal, managed []string) ([]string, error)
	// Watch tells what firewalld does by itself, until the context ends.
	Watch(ctx context.Context) (<-chan zones.Event, error)
}

// Files is where networks are kept.
type Files interface {
	// Load reads what is stored at a start; Read looks again later.
	Load() (store.State, []store.FileError, error)
	Read() (store.State, []store.FileError, error)
	// Keep makes what Load gave the last good definitions, but for refused
	// networks; Faults are files of the store's own that were put aside.
	Keep(state store.State, refused map[string]bool) error
	Faults() []store.FileError
	Put(name string, doc []byte, persistent bool) (undo func() error, err error)
	Remove(name string, persistent bool) (undo func() error, err error)
	// Persistent reports whether a persistent file defines a network of the name.
	Persistent(name string) bool
	// ForgetRuntimeChanges makes what Read gave the truth, but for runtime
	// changes to persistent networks, which end.
	ForgetRuntimeChanges(read store.State) (undo func() error, err error)
	SaveCounters(map[string]ruleset.Counters) error
	// SaveLink keeps the index of a network's link until reboot, 0 for none;
	// Links are those that were kept.
	SaveLink(network string, link store.Link) error
	Links() map[string]store.Link
}

// HostNeeds is what networks need of the host besides rules.
type HostNeeds interface {
	// Forward switches forwarding on and returns the settings that it switched;
	// problem says why it must not be.
	Forward(ctx context.Context, d host.Demand) (on []string, problem string, err error)
	// ForwardingOff returns the settings that Forward would switch on, and
	// ForwardingNeeded those that it looks at.
	ForwardingOff(d host.Demand) (off []string, err error)
	ForwardingNeeded(d host.Demand) []string
	// Retranslate forgets connections of these networks that began
	// untranslated.
	Retranslate(ctx context.Context, nets []host.Guests) error
	// FillChecksums keeps DHCP checksum help for exactly these bridges.
	FillChecksums(ctx context.Context, bridges map[string]host.DHCP) error
}

// Leftovers is libvirt's own rules.
type Leftovers interface {
	// Present counts those of networks as libvirt defines them.
	Present(ctx context.Context, nets []network.Network) (neighbour.Presence, error)
	// Remove takes out those for networks of ours that libvirt has no longer;
	// ours are the variants of iptables that hold the service's own rules, which
	// look the same.
	Remove(ctx context.Context, nets []network.Network, ours xtables.Variants) (neighbour.Report, error)
}

// Libvirt is libvirt's network driver.
type Libvirt interface {
	// State is what it has now.
	State() libvirt.State
	// Follow calls changed whenever that may be other than before, until the
	// context ends.
	Follow(ctx context.Context, changed func()) error
}

// Settings is the service's own configuration.
type Settings interface {
	Read() (Config, error)
	// AtStart returns what a start goes by where the files cannot be used, and
	// Remember keeps it.
	AtStart() (c Config, unusable error)
	Remember(c Config) error
	// StageBackend does all of writing the backend into the configuration that
	// can fail; put does the rest, and drop ends it either way.
	StageBackend(value string) (put func() error, drop func(), err error)
}
