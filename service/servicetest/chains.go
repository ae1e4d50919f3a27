package servicetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Chains are in-memory iptables chains, which outlive the service. They know
// interfaces by name alone, so no two networks can have the same name, and refuse
// networks that iptables cannot hold.
type Chains struct {
	mu     sync.Mutex
	rules  map[string]string // by network
	ifaces map[string]string // the network by its bridge's name
	wanted map[string]string // what the service last wrote
}

// Lines returns what the chains hold, by network.
func (c *Chains) Lines() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.rules)
}

// Flush removes all rules, as another program might.
func (c *Chains) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.rules)
}

// Open returns a backend over the chains.
func (c *Chains) Open() backend.Backend { return chainsBackend{c} }

type chainsBackend struct{ *Chains }

func (chainsBackend) Name() string { return choice.IPTables }

func (x chainsBackend) Apply(ctx context.Context, c backend.Change) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.change(ctx, maps.Clone(x.rules), maps.Clone(x.ifaces), c)
}

func (x chainsBackend) change(ctx context.Context, rules, ifaces map[string]string, c backend.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if rules == nil {
		rules, ifaces = map[string]string{}, map[string]string{}
	}
	drop := func(network string) {
		delete(rules, network)
		maps.DeleteFunc(ifaces, func(_, owner string) bool { return owner == network })
	}
	for _, name := range c.Remove {
		drop(name)
	}
	for _, m := range c.Set {
		drop(m.Network.Name)
	}
	for _, m := range c.Set {
		if m.Iface == "" {
			continue
		}
		n := m.Network
		n.Bridge = m.Iface
		if err := iptables.Check(n); err != nil {
			return err
		}
		if owner, taken := ifaces[n.Bridge]; taken {
			return fmt.Errorf("bridge %s of network %s is that of %s", n.Bridge, n.Name, owner)
		}
		rules[n.Name], ifaces[n.Bridge] = iptables.Text(n), n.Name
	}
	x.rules, x.ifaces, x.wanted = rules, ifaces, maps.Clone(rules)
	return nil
}

func (x chainsBackend) Sync(ctx context.Context, all []backend.Member) (damaged []string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.rules
	if err := x.change(ctx, nil, nil, backend.Change{Set: all}); err != nil {
		return nil, err
	}
	for name, text := range x.rules {
		if before[name] != text {
			damaged = append(damaged, name)
		}
	}
	slices.Sort(damaged)
	return damaged, nil
}

func (x chainsBackend) Verify(ctx context.Context) (damaged []string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, text := range x.wanted {
		if x.rules[name] != text {
			damaged = append(damaged, name)
		}
	}
	slices.Sort(damaged)
	return damaged, ctx.Err()
}

func (x chainsBackend) RemoveAll(ctx context.Context) error {
	_, err := x.Sync(ctx, nil)
	return err
}

func (x chainsBackend) Text(_ context.Context, network string) (string, error) {
	return x.Lines()[network], nil
}

func (x chainsBackend) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	return map[string]ruleset.Counters{}, ctx.Err()
}

func (x chainsBackend) ResetCounters(context.Context, string) error { return nil }
