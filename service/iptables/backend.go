// Package iptables installs libvirt's own rules with the iptables programs: the
// same chains, the same rules in the same order, so that what an administrator
// knows of libvirt's networks still holds. Compile and Text are pure; Backend
// applies. The service's rules look like those that libvirt makes for the same
// network, so they are recorded, and recognised by their content.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/program"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Config configures a Backend.
type Config struct {
	// Record is a folder in which the backend records the rules that it
	// installs, a file per network, so that the next process finds them even if
	// the network is gone by then. It should not outlive a reboot, as the rules
	// do not; "" for none.
	Record string
	// StartValues returns what a network's counters begin at when its rules are
	// made, so that totals never go back; nil means zero. It must not call the
	// backend.
	StartValues func(network string) ruleset.Counters
	// Started records the processes that change the kernel's rules; nil for
	// none.
	Started *program.Started
	// Libvirt returns what libvirt's network driver has; nil for a host without
	// libvirt. It must not call the backend.
	Libvirt func() libvirt.State
	// Log receives what an administrator may want to know; nil discards it.
	Log *slog.Logger
}

// Backend manages the service's rules in iptables. It is safe for concurrent
// use; calls run one after the other. It runs programs on the calling thread,
// whose network namespace they work on.
type Backend struct {
	config Config
	log    *slog.Logger

	mu        sync.Mutex
	families  *families     // once probed
	noFill    bool          // there is no CHECKSUM target
	synced    bool          // what an earlier process left is known
	inSync    bool          // the kernel holds what is installed, as far as is known
	installed []entry       // in the order in which they were started
	unmanaged map[Rule]bool // rules in our chains that are not ours, when last listed
	handles   handles       // of installed rules
	sockets   sockets       // once used
	recorded  map[string][]Rule
	base      map[string]ruleset.Counters // what no rule's counter holds
	last      map[string]ruleset.Counters // totals as last read
}

// Open returns a backend. It runs no program: Probe does, and Sync should be the
// first call that changes anything, since an earlier process may have left its
// rules.
func Open(cfg Config) (*Backend, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{
		config: cfg, log: cfg.Log,
		base: make(map[string]ruleset.Counters), last: make(map[string]ruleset.Counters),
	}
	var broken []error
	var err error
	b.recorded, broken, err = readRecords(cfg.Record)
	for _, why := range broken {
		b.log.Warn("a record of iptables rules cannot be used and was renamed: rules of a network that has changed since may be left, which `virtfirewallctl rules` does not show and iptables-save does",
			"error", why)
	}
	return b, err
}

// Name returns the contract's name of the backend.
func (*Backend) Name() string { return choice.IPTables }

var errNotSynced = errors.New("rules may be there from earlier: they have to be synchronised before they are changed")

// Apply installs or changes the rules of networks, and removes others: all or
// nothing. It touches only what the change touches. A new network's rules go
// above those of the others, as with libvirt. The chains are created with the
// first network and deleted with the last. A network whose bridge belongs to
// another one is removed as well.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
	if len(c.Set)+len(c.Remove) == 0 {
		return nil // interfaces stand in the rules by name alone
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	if !b.synced && len(b.recorded) > 0 {
		return errNotSynced
	}
	b.synced = true
	entries, err := b.compile(c.Set)
	if err != nil {
		return err
	}
	if err := b.recordEntries(entries); err != nil {
		return err
	}
	next := b.change(entries, removed(c))
	if b.inSync && next.needsNoListing(b.unmanaged) {
		if err = b.applyQuickly(ctx, next); err == nil {
			b.setInstalled(next.want, nil)
			return nil
		}
		b.log.Warn("rules are not as they were left, and are looked through", "error", err)
	} else if b.inSync && next.replacesOne(b.unmanaged) {
		if err = b.replaceKnown(ctx, next.altered[0]); err == nil {
			b.setInstalled(next.want, nil)
			return nil
		}
		b.log.Debug("all rules are compared", "error", err)
	}
	if _, err := b.converge(ctx, next.want, ""); err != nil {
		return errors.Join(err, b.rollBack(ctx))
	}
	return nil
}

// Sync makes the kernel hold exactly these networks' rules, whatever it holds,
// and returns the networks whose rules were wrong. The networks are in the order
// in which they were started.
func (b *Backend) Sync(ctx context.Context, all []backend.Member) (damaged []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	want, err := b.compile(all)
	if err != nil {
		return nil, err
	}
	want = slices.DeleteFunc(want, func(n entry) bool { return len(n.rules) == 0 })
	if err := b.recordEntries(want); err != nil {
		return nil, err
	}
	movedChains := b.movedChains(want)
	if damaged, err = b.converge(ctx, want, ""); err != nil {
		b.forgetProbe()
		return damaged, err
	}
	b.synced = true
	return slices.DeleteFunc(damaged, func(name string) bool { return movedChains[name] }), nil
}

// Verify returns the networks whose rules are not in force as they should be. It
// changes nothing.
func (b *Backend) Verify(ctx context.Context) (damaged []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	l, err := b.families.list(ctx)
	if err != nil {
		return nil, err
	}
	return makePlan(l, b.goal(b.installed, "")).damagedNames(), nil
}

// RemoveAll removes everything that is the service's, also what an earlier
// process recorded. Chains that hold others' rules stay. If nothing was ever
// recorded it runs no program: on a host without iptables that is no error.
func (b *Backend) RemoveAll(ctx context.Context) error {
	if b.config.Record != "" {
		records, err := os.ReadDir(b.config.Record)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(records) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	_, err := b.Sync(ctx, nil)
	return err
}

func (b *Backend) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.families == nil {
		return b.probe(ctx)
	}
	return nil
}

// compile returns the rules of networks, for the names that their bridges have
// now. It leaves out a network whose bridge belongs to another one.
func (b *Backend) compile(members []backend.Member) ([]entry, error) {
	var out []entry
	state := b.state()
	for _, m := range members {
		if m.Iface == "" {
			continue
		}
		n := m.Network
		n.Bridge = m.Iface
		if err := Check(n); err != nil {
			return nil, err
		}
		e := entry{network: n.Name, rules: b.withoutFill(Compile(n))}
		if theirs, both := state.Beside(n.Bridge); both {
			e.rules, e.theirs = besideAll(e.rules), b.libvirtsRules(n, theirs)
		}
		out = append(out, e)
	}
	return out, nil
}

func (b *Backend) goal(want []entry, reset string) goal {
	g := newGoal(want, b.recorded)
	g.reset, g.totals, g.libvirtActive = reset, b.total, !b.state().Idle()
	return g
}

// total returns a network's totals, given the counts of its rules.
func (b *Backend) total(network string, seen ruleset.Counters) ruleset.Counters {
	total := maxCounters(sumCounters(b.base[network], seen), b.last[network])
	if b.config.StartValues != nil {
		total = maxCounters(total, b.config.StartValues(network))
	}
	return total
}

// converge lists what the kernel holds and changes it to what is wanted.
func (b *Backend) converge(ctx context.Context, want []entry, reset string) (damaged []string, err error) {
	l, err := b.families.list(ctx)
	if err != nil {
		return nil, err
	}
	g := b.goal(want, reset)
	p := makePlan(l, g)
	b.inSync = false
	if err := b.execute(ctx, p); err != nil {
		return nil, err
	}
	b.unmanaged = l.unmanaged(g)
	b.setInstalled(want, p.base)
	return p.damagedNames(), nil
}

// applyQuickly is applyUnlisted, or deletes rules by their handles if nothing else is
// to be done and they are known.
func (b *Backend) applyQuickly(ctx context.Context, c change) error {
	if len(c.fresh) == 0 && len(c.gone) > 0 {
		err := b.removeKnown(ctx, c.gone)
		if err == nil {
			return nil
		}
		b.log.Debug("rules are deleted by their content", "error", err)
	}
	return b.applyUnlisted(ctx, c)
}

// applyUnlisted installs new networks and removes old ones without listing what
// the kernel holds. It fails if that is no longer what is installed.
func (b *Backend) applyUnlisted(ctx context.Context, c change) error {
	p := plan{start: make(map[Rule]count)}
	edits := make(map[Chain]*edit)
	for _, chain := range allChains() {
		edits[chain] = &edit{chain: chain, headOnly: true}
	}
	for _, n := range c.gone {
		for _, r := range n.rules {
			e := edits[r.Chain]
			e.stale = append(e.stale, len(e.lines))
			e.lines = append(e.lines, line{rule: r, known: true})
		}
	}
	for _, n := range c.fresh {
		for chain, rules := range byChain(n.rules) {
			edits[chain].inserts = append(edits[chain].inserts, insert{n.network, rules, -1})
		}
		b.base[n.network] = p.assignCounts(b.total(n.network, ruleset.Counters{}), ruleset.Counters{}, n.rules)
	}
	for _, chain := range allChains() {
		p.edits = append(p.edits, *edits[chain])
	}
	b.inSync = false
	return b.execute(ctx, p)
}

// setInstalled records that the kernel holds what is wanted; base is nil if the
// counters of earlier networks are unchanged.
func (b *Backend) setInstalled(want []entry, base map[string]ruleset.Counters) {
	b.handles.settle(b.installed, want)
	b.installed, b.inSync = want, true
	if base != nil {
		b.base = base
	}
	is := make(map[string]bool, len(want))
	for _, n := range want {
		is[n.network] = true
	}
	gone := func(name string, _ ruleset.Counters) bool { return !is[name] }
	maps.DeleteFunc(b.last, gone)
	maps.DeleteFunc(b.base, gone)
	b.trimRecords(want)
}

const rollBackTimeout = 20 * time.Second

// rollBack restores what the kernel held before a change that failed half-way,
// also if it failed because its deadline had passed.
func (b *Backend) rollBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollBackTimeout)
	defer cancel()
	if _, err := b.converge(ctx, b.installed, ""); err != nil {
		return fmt.Errorf("taking back what was done: %w", err)
	}
	return nil
}

func (p plan) damagedNames() []string {
	var names []string
	for name := range p.damaged {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
