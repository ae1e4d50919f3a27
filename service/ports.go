package service

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// Rules is the backend: what holds the rules in the kernel.
type Rules interface {
	// Apply makes one transaction of a change: all of it or none.
	Apply(ctx context.Context, c ruleset.Change) error
	// Sync brings the kernel to exactly these parts, whatever is there, and
	// reports what was not as it should be.
	Sync(ctx context.Context, parts []ruleset.Part) (nftables.SyncReport, error)
	// Installed is a network's part under the names that it has in the kernel.
	Installed(network string) (ruleset.Part, bool)
	Counters(ctx context.Context) (map[string]ruleset.Counters, error)
	ResetCounters(ctx context.Context, network string) error
}

// Links is the host's interfaces as the link monitor knows them.
type Links interface {
	// Query asks the kernel itself.
	Query(name string) (link watch.Link, ok bool, err error)
	LinkByIndex(index int) (watch.Link, bool)
	Addresses() []watch.Address
	DefaultRoutes() []watch.Route
	Changes() <-chan watch.Change
}

// Zones is firewalld. Errors are those of package zones.
type Zones interface {
	// Installed is what firewalld has; it never starts firewalld.
	Installed(ctx context.Context) (zones.Installed, error)
	Backend(ctx context.Context) (string, error)
	// Interfaces is every interface that a zone has, with the zone.
	Interfaces(ctx context.Context) (map[string]string, error)
	Bind(ctx context.Context, iface, zone string) (bound string, err error)
	// Unbind takes an interface out of a zone, "" for whichever it is in.
	Unbind(ctx context.Context, zone, iface string) error
}

// ZoneFiles puts the service's zones into firewalld and takes them out.
type ZoneFiles interface {
	// Install and Remove reload firewalld where they change something; managed
	// are bridges whose bindings need not be kept, for the service puts them
	// back.
	Install(ctx context.Context, force bool, managed []string) ([]string, error)
	Remove(ctx context.Context, unbind bool, managed []string) ([]string, error)
	// Watch tells what firewalld does by itself, until the context ends.
	Watch(ctx context.Context) (<-chan zones.Event, error)
}

// Files is where networks are kept.
type Files interface {
	// Load reads what is stored at a start; Read looks again later.
	Load() (store.State, []store.FileError, error)
	Read() (store.State, []store.FileError, error)
	Put(name string, doc []byte, persistent bool) (undo func() error, err error)
	Remove(name string, persistent bool) (undo func() error, err error)
	// Persistent says whether a persistent file speaks of the name.
	Persistent(name string) bool
	// ForgetRuntimeChanges makes what Read gave the truth, but for runtime
	// changes to persistent networks, which end.
	ForgetRuntimeChanges(read store.State) (undo func() error, err error)
	SaveCounters(map[string]ruleset.Counters) error
}

// HostNeeds is what networks need of the host besides rules.
type HostNeeds interface {
	// Forward switches forwarding on; problem says why it must not be.
	Forward(ctx context.Context, v4, v6 bool) (problem string, err error)
	// Retranslate forgets connections of these networks that began
	// untranslated.
	Retranslate(ctx context.Context, nets []network.Network) error
	// FillChecksums keeps DHCP checksum help for exactly these bridges, each
	// with its network's name.
	FillChecksums(ctx context.Context, bridges map[string]string) error
}

// Settings is the service's own configuration.
type Settings interface {
	Read() (Config, error)
	SetBackend(value string) error
}
