// Package backend says what holds the networks' rules in the kernel: nftables or
// iptables. Both packages implement Backend; which of them is used, package
// choice decides.
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
	// Iface is the name by which rules of interface names match the bridge; ""
	// where another network has that.
	Iface string
	// Names are those by which the bridge is known where it has no index yet.
	Names []string
}

// Change is one transaction: networks that are added or whose rules are
// replaced, and the names of those that go.
type Change struct {
	Set    []Member
	Remove []string
}

// Backend is what holds the rules in the kernel.
type Backend interface {
	// Name is the contract's name of the backend.
	Name() string
	// Apply makes a change: all of it or none.
	Apply(ctx context.Context, c Change) error
	// Sync brings the kernel to exactly these networks, whatever is there, and
	// names those whose rules were not as they should be.
	Sync(ctx context.Context, all []Member) (damaged []string, err error)
	// Verify names the networks whose rules are not as they should be, and
	// repairs nothing.
	Verify(ctx context.Context) (damaged []string, err error)
	// RemoveAll takes out everything, also what an earlier run left.
	RemoveAll(ctx context.Context) error
	// Text is what the kernel holds for a network; "" for nothing.
	Text(ctx context.Context, network string) (string, error)
	Counters(ctx context.Context) (map[string]ruleset.Counters, error)
	ResetCounters(ctx context.Context, network string) error
}
