package service

import (
	"context"
	"os"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
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
	Name() string
	// Apply makes a change: all of it or none.
	Apply(ctx context.Context, c Change) error
	// Sync brings the kernel to exactly these networks, whatever is there, and
	// names those whose rules were not as they should be.
	Sync(ctx context.Context, all []Member) (damaged []string, err error)
	// Verify names the networks whose rules are not as they should be, and
	// repairs nothing.
	Verify(ctx context.Context) (damaged []string, err error)
	// Vacate takes out everything, also what an earlier run left.
	Vacate(ctx context.Context) error
	// Text is what the kernel holds for a network; "" for nothing.
	Text(ctx context.Context, network string) (string, error)
	Counters(ctx context.Context) (map[string]ruleset.Counters, error)
	ResetCounters(ctx context.Context, network string) error
}

// NFTables is the backend with a table of the service's own.
type NFTables struct{ Kernel *nftables.Backend }

// Name is the contract's name of the backend.
func (NFTables) Name() string { return choice.NFTables }

// Apply makes one transaction of a change.
func (b NFTables) Apply(ctx context.Context, c Change) error {
	return b.Kernel.Apply(ctx, ruleset.Change{Set: compile(c.Set), Remove: c.Remove})
}

// Sync brings the table to exactly these networks.
func (b NFTables) Sync(ctx context.Context, all []Member) (damaged []string, err error) {
	report, err := b.Kernel.Sync(ctx, compile(all))
	if report.TableMissing || report.Rebuilt || report.Dormant || report.Skeleton {
		for _, m := range all {
			damaged = append(damaged, m.Network.Name)
		}
		return damaged, err
	}
	return report.Repaired, err
}

// Verify names the networks whose rules are not in force as they should be.
func (b NFTables) Verify(ctx context.Context) ([]string, error) { return b.Kernel.Verify(ctx) }

// Vacate takes the table out, also one of an earlier run.
func (b NFTables) Vacate(ctx context.Context) error {
	_, err := b.Kernel.Sync(ctx, nil)
	return err
}

// Text is what the kernel holds for a network; "" for nothing.
func (b NFTables) Text(ctx context.Context, network string) (string, error) {
	return b.Kernel.List(ctx, network)
}

// Counters are the totals of all networks.
func (b NFTables) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	return b.Kernel.Counters(ctx)
}

// ResetCounters begins a network's totals anew.
func (b NFTables) ResetCounters(ctx context.Context, network string) error {
	return b.Kernel.ResetCounters(ctx, network)
}

func compile(members []Member) []ruleset.Part {
	parts := make([]ruleset.Part, 0, len(members))
	for _, m := range members {
		if part, ok := ruleset.Compile(m.Network, m.Index, m.Names...); ok {
			parts = append(parts, part)
		}
	}
	return parts
}

// IPTables is the backend with libvirt's own chains.
type IPTables struct {
	Kernel *iptables.Backend
	Record string // the folder where Kernel notes what it put in
}

// Name is the contract's name of the backend.
func (IPTables) Name() string { return choice.IPTables }

// Apply makes one change; each table changes in one step.
func (b IPTables) Apply(ctx context.Context, c Change) error {
	remove := slices.Clone(c.Remove)
	for _, m := range c.Set {
		if m.Iface == "" {
			remove = append(remove, m.Network.Name)
		}
	}
	return b.Kernel.Apply(ctx, networks(c.Set), remove)
}

// Sync brings the chains to exactly these networks.
func (b IPTables) Sync(ctx context.Context, all []Member) (damaged []string, err error) {
	return b.Kernel.Sync(ctx, networks(all))
}

// Verify names the networks whose rules are not in force as they should be.
func (b IPTables) Verify(ctx context.Context) ([]string, error) { return b.Kernel.Verify(ctx) }

// Vacate takes all rules out. Where nothing was ever noted nothing is run: on
// a host without iptables that is no error.
func (b IPTables) Vacate(ctx context.Context) error {
	notes, err := os.ReadDir(b.Record)
	if os.IsNotExist(err) || (err == nil && len(notes) == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.Kernel.Remove(ctx)
}

// Text is what the kernel holds for a network; "" for nothing.
func (b IPTables) Text(ctx context.Context, network string) (string, error) {
	return b.Kernel.Text(ctx, network)
}

// Counters are the totals of all networks.
func (b IPTables) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	return b.Kernel.Counters(ctx)
}

// ResetCounters begins a network's totals anew.
func (b IPTables) ResetCounters(ctx context.Context, network string) error {
	return b.Kernel.ResetCounters(ctx, network)
}

// networks are members as libvirt's rules name them: by the name that the bridge
// has now.
func networks(members []Member) []network.Network {
	out := make([]network.Network, 0, len(members))
	for _, m := range members {
		if m.Iface != "" {
			m.Network.Bridge = m.Iface
			out = append(out, m.Network)
		}
	}
	return out
}
