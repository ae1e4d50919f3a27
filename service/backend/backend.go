// Package backend defines what holds the networks' rules in the kernel: nftables or
// iptables. Both packages implement Backend; package choice decides which is used.
package backend

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Member is a network as a backend needs it.
type Member struct {
	Network network.Network
	Index   int // of its bridge; 0 while there is none
	// Iface is the name by which rules of interface names match the bridge; "" if
	// that belongs to another network.
	Iface string
	// Names are the names that match the bridge while it has no index.
	Names []string
}

// Change is one transaction: networks that are added or whose rules are replaced,
// and the names of those that are removed.
type Change struct {
	Set    []Member
	Remove []string
}

// Backend manages the rules in the kernel.
type Backend interface {
	// Name returns the contract's name of the backend.
	Name() string
	// Apply makes a change: all of it or none. An empty one brings the rules in line
	// with the host's interfaces.
	Apply(ctx context.Context, c Change) error
	// Sync makes the kernel hold exactly these networks, whatever it holds, and
	// returns those whose rules were wrong.
	Sync(ctx context.Context, all []Member) (damaged []string, err error)
	// Verify returns the networks whose rules are wrong, and repairs nothing.
	Verify(ctx context.Context) (damaged []string, err error)
	// RemoveAll removes everything, also what an earlier run left.
	RemoveAll(ctx context.Context) error
	// Text returns what the kernel holds for a network; "" for nothing.
	Text(ctx context.Context, network string) (string, error)
	Counters(ctx context.Context) (map[string]ruleset.Counters, error)
	ResetCounters(ctx context.Context, network string) error
}
