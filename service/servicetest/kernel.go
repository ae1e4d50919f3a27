package servicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Kernel is an in-memory nf_tables with one table, which outlives the service. It
// applies a transaction as a whole or not at all, and refuses what the real one
// refuses: a second element with the same key, adding a chain or counter that
// exists or removing one that does not, a verdict to a chain that does not exist,
// the deletion of a chain that is referenced.
type Kernel struct {
	mu    sync.Mutex
	table *table // nil while there is none
	owner error  // the error while another program owns the table
}

// table is the contents of one table.
type table struct {
	chains   map[string]ruleset.Chain
	elements map[elementKey]ruleset.Element
	counters map[string]bool   // by name, of rules
	totals   map[string]uint64 // packets from the guests of networks
}

// elementKey is unique among the elements of a set.
type elementKey struct {
	set       string
	index     int
	name      string
	addresses [2]netip.Addr
	v6        bool
}

func keyOf(e ruleset.Element) elementKey {
	k := elementKey{set: e.Set, index: e.Index, name: e.Name, addresses: e.Addresses, v6: e.IPv6}
	if e.Index != 0 {
		k.name = ""
	}
	return k
}

func newTable() *table {
	t := &table{chains: map[string]ruleset.Chain{}, elements: map[elementKey]ruleset.Element{}, counters: map[string]bool{}, totals: map[string]uint64{}}
	for _, c := range ruleset.Base(ruleset.Interface{}).Chains {
		t.chains[c.Name] = c
	}
	return t
}

func (t *table) clone() *table {
	return &table{chains: maps.Clone(t.chains), elements: maps.Clone(t.elements), counters: maps.Clone(t.counters), totals: maps.Clone(t.totals)}
}

// add adds a network's objects.
func (t *table) add(p ruleset.Part, start uint64) error {
	for _, name := range p.Counters {
		if _, there := t.counters[name]; there {
			return fmt.Errorf("counter %s: %w", name, unix.EEXIST)
		}
		t.counters[name] = true
	}
	if _, there := t.totals[p.Network]; !there {
		t.totals[p.Network] = start
	}
	for _, c := range p.Chains {
		if _, there := t.chains[c.Name]; there {
			return fmt.Errorf("chain %s: %w", c.Name, unix.EEXIST)
		}
		t.chains[c.Name] = c
	}
	for _, e := range p.Elements {
		if had, there := t.elements[keyOf(e)]; there {
			return fmt.Errorf("element %+v, which is there as %+v: %w", e, had, unix.EEXIST)
		}
		t.elements[keyOf(e)] = e
	}
	return nil
}

// remove removes a network's objects, and its totals unless it stays.
func (t *table) remove(p ruleset.Part, stays bool) error {
	for _, e := range p.Elements {
		if _, there := t.elements[keyOf(e)]; !there {
			return fmt.Errorf("element %+v: %w", e, unix.ENOENT)
		}
		delete(t.elements, keyOf(e))
	}
	for _, c := range p.Chains {
		if _, there := t.chains[c.Name]; !there {
			return fmt.Errorf("chain %s: %w", c.Name, unix.ENOENT)
		}
		delete(t.chains, c.Name)
	}
	for _, name := range p.Counters {
		if _, there := t.counters[name]; !there {
			return fmt.Errorf("counter %s: %w", name, unix.ENOENT)
		}
		delete(t.counters, name)
	}
	if !stays {
		delete(t.totals, p.Network)
	}
	return nil
}

// check refuses references to what does not exist.
func (t *table) check() error {
	for _, e := range t.elements {
		if _, there := t.chains[e.Goto]; e.Goto != "" && !there {
			return fmt.Errorf("element %+v leads to a chain that is not there: %w", e, unix.ENOENT)
		}
	}
	for _, c := range t.chains {
		for _, r := range c.Rules {
			if _, there := t.counters[r.Counter]; r.Counter != "" && !there {
				return fmt.Errorf("chain %s counts with %s, which is not there: %w", c.Name, r.Counter, unix.ENOENT)
			}
			if to, leads := r.Action.(ruleset.Goto); leads {
				if _, there := t.chains[to.Chain]; !there {
					return fmt.Errorf("chain %s leads to %s, which is not there: %w", c.Name, to.Chain, unix.ENOENT)
				}
			}
		}
	}
	return nil
}

// Lines returns what the kernel holds, sorted.
func (k *Kernel) Lines() (lines []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.table == nil {
		return nil
	}
	for _, e := range k.table.elements {
		lines = append(lines, fmt.Sprintf("element %+v", e))
	}
	for _, c := range k.table.chains {
		for i, r := range c.Rules {
			lines = append(lines, fmt.Sprintf("chain %s %d: %s", c.Name, i, r))
		}
	}
	for name, packets := range k.table.totals {
		lines = append(lines, fmt.Sprintf("counter %s %d", name, packets))
	}
	slices.Sort(lines)
	return lines
}

// Flush flushes the whole ruleset, as another program might.
func (k *Kernel) Flush() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.table = nil
}

// Damage flushes one network's chains and removes its elements, as another program
// might.
func (k *Kernel) Damage(network string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, c := range k.table.chains {
		if strings.HasPrefix(name, "net_"+network+"_") {
			c.Rules = nil
			k.table.chains[name] = c
		}
	}
	maps.DeleteFunc(k.table.elements, func(_ elementKey, e ruleset.Element) bool { return e.Comment == "network "+network })
}

// Count counts packets as sent by a network's guests.
func (k *Kernel) Count(network string, packets uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.table.totals[network] += packets
}

// Own makes another program the table's owner: changes fail with err, nil for none.
func (k *Kernel) Own(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owner = err
}

// Open returns a backend over the kernel, for one run of the service. Counters
// begin at what start returns.
func (k *Kernel) Open(start func(network string) ruleset.Counters) backend.Backend {
	return &nftables{kernel: k, start: start, parts: map[string]ruleset.Part{}}
}

// nftables is the backend of one run of the service.
type nftables struct {
	kernel *Kernel
	start  func(network string) ruleset.Counters
	parts  map[string]ruleset.Part // what it wrote
	synced bool
}

func (*nftables) Name() string { return choice.NFTables }

func compile(members []backend.Member) map[string]ruleset.Part {
	parts := make(map[string]ruleset.Part, len(members))
	for _, m := range members {
		if p, ok := ruleset.Compile(m.Network, m.Index, m.Names...); ok {
			parts[p.Network] = p
		}
	}
	return parts
}

// commit applies one transaction: first removals, then additions.
func (b *nftables) commit(ctx context.Context, old, next map[string]ruleset.Part, from *table) error {
	if err := errors.Join(ctx.Err(), b.kernel.owner); err != nil {
		return err
	}
	t := from.clone()
	for name, p := range old {
		_, stays := next[name]
		if err := t.remove(p, stays); err != nil {
			return err
		}
	}
	for name, p := range next {
		if err := t.add(p, b.start(name).FromGuestPackets); err != nil {
			return err
		}
	}
	if err := t.check(); err != nil {
		return err
	}
	b.kernel.table = t
	for name := range old {
		delete(b.parts, name)
	}
	maps.Copy(b.parts, next)
	if len(b.parts) == 0 {
		b.kernel.table = nil // it is deleted with its last network
	}
	return nil
}

func (b *nftables) Apply(ctx context.Context, c backend.Change) error {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if !b.synced && b.kernel.table != nil {
		return errors.New("the table is there from earlier: it has to be synchronised before it is changed")
	}
	b.synced = true
	if b.kernel.table == nil && len(b.parts) > 0 {
		if _, err := b.sync(ctx, b.parts); err != nil {
			return err
		}
	}
	next, old := compile(c.Set), map[string]ruleset.Part{}
	for name := range next {
		if p, had := b.parts[name]; had {
			old[name] = p
		}
	}
	for _, name := range c.Remove {
		if _, both := next[name]; both {
			return fmt.Errorf("network %s is set and removed in one change", name)
		}
		if p, had := b.parts[name]; had {
			old[name] = p
		}
	}
	from := b.kernel.table
	if from == nil {
		from = newTable()
	}
	return b.commit(ctx, old, next, from)
}

func (b *nftables) Sync(ctx context.Context, all []backend.Member) (damaged []string, err error) {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	return b.sync(ctx, compile(all))
}

func (b *nftables) sync(ctx context.Context, want map[string]ruleset.Part) (damaged []string, err error) {
	damaged = b.differing(want)
	from := newTable()
	if b.kernel.table != nil {
		for name := range want {
			if packets, counted := b.kernel.table.totals[name]; counted {
				from.totals[name] = packets
			}
		}
	}
	before := b.parts
	b.parts = map[string]ruleset.Part{}
	if err := b.commit(ctx, nil, want, from); err != nil {
		b.parts = before
		return nil, err
	}
	b.synced = true
	return damaged, nil
}

// differing returns the networks whose rules in the kernel are not as wanted.
func (b *nftables) differing(want map[string]ruleset.Part) (damaged []string) {
	for name, p := range want {
		if !b.kernel.holds(p) {
			damaged = append(damaged, name)
		}
	}
	slices.Sort(damaged)
	return damaged
}

func (k *Kernel) holds(p ruleset.Part) bool {
	if k.table == nil {
		return false
	}
	for _, c := range p.Chains {
		if fmt.Sprint(k.table.chains[c.Name]) != fmt.Sprint(c) {
			return false
		}
	}
	for _, e := range p.Elements {
		if k.table.elements[keyOf(e)] != e {
			return false
		}
	}
	return true
}

func (b *nftables) Verify(ctx context.Context) ([]string, error) {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	return b.differing(b.parts), ctx.Err()
}

func (b *nftables) RemoveAll(ctx context.Context) error {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	_, err := b.sync(ctx, nil)
	return err
}

func (b *nftables) Text(_ context.Context, network string) (string, error) {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	p, ok := b.parts[network]
	if !ok || !b.kernel.holds(p) {
		return "", nil
	}
	return ruleset.Text(ruleset.Base(ruleset.Interface{}), p), nil
}

func (b *nftables) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	out := map[string]ruleset.Counters{}
	for name := range b.parts {
		if b.kernel.table != nil {
			out[name] = ruleset.Counters{FromGuestPackets: b.kernel.table.totals[name]}
		}
	}
	return out, ctx.Err()
}

func (b *nftables) ResetCounters(_ context.Context, network string) error {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if _, there := b.kernel.table.totals[network]; !there {
		return fmt.Errorf("the totals of %s: %w", network, unix.ENOENT)
	}
	b.kernel.table.totals[network] = 0
	return nil
}
