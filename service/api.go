package service

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// State says how far a network's firewall is in force.
type State string

// The states of the contract.
const (
	StateActive   State = "active"   // all of it is in force
	StateWaiting  State = "waiting"  // its bridge does not exist yet; rules and zone hold by name
	StateDegraded State = "degraded" // the rules are in force, something beside them is not
	StateFailed   State = "failed"   // the rules are not in force
)

// Status is one network as clients see it: an immutable value.
type Status struct {
	Network     network.Network
	Persistent  bool
	Backend     string // "nftables" or "iptables"
	BridgeIndex int    // 0 while there is no bridge
	Interface   string // the bridge's own name now, which may be another than the network says
	State       State
	StateCode   finding.ID // "" while active, else the kind of the finding that says most of the State
	StateReason string     // "" while active, else a sentence with the remedy
	Findings    []finding.Finding
	BoundZone   string // the zone that firewalld has the bridge in; "" without firewalld
}

// Host is the service as a whole as clients see it: an immutable value.
type Host struct {
	Version           string
	Backend           string
	ConfiguredBackend string
	BackendSource     string
	AvailableBackends []string
	FirewalldRunning  bool
	FirewalldBackend  string
	InstalledZones    []string
}

// Event is one thing that happened, in the order it did. Exactly one of the
// types below.
type Event interface{ event() }

// NetworkAdded says that a network is now governed.
type NetworkAdded struct{ Status Status }

// NetworkRemoved says that a network is no longer governed.
type NetworkRemoved struct{ Status Status }

// NetworkChanged carries what a network was and what it is now.
type NetworkChanged struct{ Old, New Status }

// FindingsChanged says that Diagnose answers something else than before.
type FindingsChanged struct{}

// HostChanged carries what the service as a whole was and is.
type HostChanged struct{ Old, New Host }

// Repaired says that something outside changed what belongs to a network, and
// that it was put back.
type Repaired struct{ Name, Cause string }

func (NetworkAdded) event()    {}
func (NetworkRemoved) event()  {}
func (NetworkChanged) event()  {}
func (HostChanged) event()     {}
func (Repaired) event()        {}
func (FindingsChanged) event() {}

// ChangeOptions are the options of a call that changes a network.
type ChangeOptions struct {
	Persistent bool
	Replace    bool // AddNetwork only
	// Source is the document that an added network was read from, kept as it
	// is when the network is stored; nil for networks made from settings.
	Source []byte
	// Expect, where it is not nil, is asked first of all.
	Expect Expect
}

// Expect is asked while nothing else can change, with the network as it is then
// (nil for none), whether the change may still be made: its caller decided that
// on an earlier look. What it returns ends the call as it is.
type Expect func(before *Status) error

// API is everything that the bus may ask of the service. Every method may be
// called at any time from any goroutine. Errors are *Error, or what an Expect or
// the context of the call returned.
type API interface {
	// Of single networks.

	AddNetwork(ctx context.Context, n network.Network, o ChangeOptions) error
	RemoveNetwork(ctx context.Context, name string, o ChangeOptions) error
	UpdateNetwork(ctx context.Context, name string, settings map[string]any, o ChangeOptions) error
	// NetworkStatus is the network of that name; ok is false for none.
	NetworkStatus(name string) (st Status, ok bool)
	// AllNetworks are all networks, by name.
	AllNetworks() []Status
	// Ruleset is what the kernel holds for the network, in nft syntax.
	Ruleset(ctx context.Context, name string) (string, error)
	// Counters are the contract's six totals by name.
	Counters(ctx context.Context, name string) (map[string]uint64, error)

	// Of the service as a whole.

	HostStatus() Host
	Preview(ctx context.Context, n network.Network, backend string) (string, error)
	SetBackend(ctx context.Context, backend string, o ChangeOptions) error
	Reload(ctx context.Context) error
	Reapply(ctx context.Context) (repairs int, err error)
	// Diagnose returns everything that was found, what matters most first.
	Diagnose(ctx context.Context) ([]finding.Finding, error)

	// Of zones.

	InstallZones(ctx context.Context, force bool) (installed []string, err error)
	RemoveZones(ctx context.Context, o zones.Removal) (removed []string, err error)
	BindInterface(ctx context.Context, iface, zone string, expect Expect) (bound string, err error)
	UnbindInterface(ctx context.Context, iface string, expect Expect) error
}
