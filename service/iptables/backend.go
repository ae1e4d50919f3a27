// Package iptables puts libvirt's own rules into the kernel with the iptables
// programs: the same chains, the same rules in the same order, so that what an
// administrator knows of libvirt's networks still holds. Compile and Text are
// pure; Backend applies. What is the service's cannot be told from what libvirt
// made for the same network: it is remembered, and found again by what it says.
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

// Config says how a Backend works.
type Config struct {
	// Record is a folder in which the backend notes what it puts into the
	// kernel, a file for each network, so that the next process finds it also
	// where the network is gone by then. It should not outlive a reboot, as the
	// rules do not; "" for none.
	Record string
	// StartValues are what a network's counters begin at when its rules are
	// made, so that totals never go back; nil for zero. It must not call the
	// backend.
	StartValues func(network string) ruleset.Counters
	// Started remembers the processes that change the kernel's rules; nil for
	// nobody.
	Started *program.Started
	// Libvirt is what libvirt's network driver has; nil for a host without
	// libvirt. It must not call the backend.
	Libvirt func() libvirt.State
	// Log takes what an administrator may want to know; nil for silence.
	Log *slog.Logger
}

// Backend is what the service holds in iptables. All methods may be called from
// any goroutine; they run one after the other. It runs programs on the calling
// thread, whose network namespace they work on.
type Backend struct {
	config Config
	log    *slog.Logger

	mu        sync.Mutex
	families  []family      // once probed
	noFill    bool          // there is no CHECKSUM target
	synced    bool          // what an earlier process left is known
	settled   bool          // the kernel holds what is remembered, as far as is known
	installed []entry       // in the order in which they were started
	strangers map[Rule]bool // rules in our chains that nobody here wanted, when last looked at
	recorded  map[string][]Rule
	base      map[string]ruleset.Counters // what no rule's counter holds
	last      map[string]ruleset.Counters // totals as last seen
}

// Open prepares a backend. It runs nothing: Probe does, and Sync should be the
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

// Name is the contract's name of the backend.
func (*Backend) Name() string { return choice.IPTables }

var errNotSynced = errors.New("rules may be there from earlier: they have to be synchronised before they are changed")

// Apply puts networks in, or changes their rules, and takes others out: all of
// it or nothing. It touches only what the change touches. A new network's rules
// go above those of the others, as with libvirt. With the first network the
// chains are made, with the last they go. A network whose bridge another one has
// goes as well.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
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
	if err := b.note(entries); err != nil {
		return err
	}
	next := b.change(entries, removed(c))
	if b.settled && next.simple(b.strangers) {
		if err = b.quick(ctx, next); err == nil {
			b.remember(next.want, nil)
			return nil
		}
		b.log.Warn("rules are not as they were left, and are looked through", "error", err)
	}
	if _, err := b.converge(ctx, next.want, ""); err != nil {
		return errors.Join(err, b.goBack(ctx))
	}
	return nil
}

// Sync makes the kernel hold exactly these networks' rules, whatever is there,
// and names the networks whose rules were not as they should be. The networks
// are given in the order in which they were started.
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
	if err := b.note(want); err != nil {
		return nil, err
	}
	moved := b.moved(want)
	if damaged, err = b.converge(ctx, want, ""); err != nil {
		b.doubt()
		return damaged, err
	}
	b.synced = true
	return slices.DeleteFunc(damaged, func(name string) bool { return moved[name] }), nil
}

// Verify names the networks whose rules are not in force as they should be. It
// changes nothing.
func (b *Backend) Verify(ctx context.Context) (damaged []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	l, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	return makePlan(l, b.goal(b.installed, "")).damagedNames(), nil
}

// RemoveAll takes out everything that is the service's, also what an earlier
// process recorded. Chains that hold others' rules stay. Where nothing was ever
// recorded nothing is run: on a host without iptables that is no error.
func (b *Backend) RemoveAll(ctx context.Context) error {
	if b.config.Record != "" {
		notes, err := os.ReadDir(b.config.Record)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(notes) == 0) {
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

// compile returns the rules of networks, by the names that their bridges have
// now. One whose bridge another network has is left out.
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

func (b *Backend) look(ctx context.Context) (listing, error) {
	var l listing
	for _, f := range b.families {
		if err := f.list(ctx, &l); err != nil {
			return listing{}, err
		}
	}
	return l, nil
}

func (b *Backend) goal(want []entry, anew string) goal {
	g := newGoal(want, b.recorded)
	g.anew, g.totals, g.keep = anew, b.total, !b.state().Idle()
	return g
}

// total is what a network's counters are to say, given what its rules say.
func (b *Backend) total(network string, seen ruleset.Counters) ruleset.Counters {
	total := highest(sum(b.base[network], seen), b.last[network])
	if b.config.StartValues != nil {
		total = highest(total, b.config.StartValues(network))
	}
	return total
}

// converge looks at what the kernel holds and makes of it what is wanted.
func (b *Backend) converge(ctx context.Context, want []entry, anew string) (damaged []string, err error) {
	l, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	g := b.goal(want, anew)
	p := makePlan(l, g)
	b.settled = false
	if err := b.carryOut(ctx, p); err != nil {
		return nil, err
	}
	b.strangers = l.strangers(g)
	b.remember(want, p.base)
	return p.damagedNames(), nil
}

func (b *Backend) carryOut(ctx context.Context, p plan) error {
	v4, v6 := p.scripts()
	for i, s := range []script{v4, v6} {
		if err := b.families[i].do(ctx, s.text()); err != nil {
			return err
		}
	}
	return nil
}

// quick puts in new networks and takes out old ones without a look at what is
// there. It fails where that is not what it was.
func (b *Backend) quick(ctx context.Context, c change) error {
	p := plan{start: make(map[Rule]count)}
	edits := make(map[Chain]*edit)
	for _, chain := range allChains() {
		edits[chain] = &edit{chain: chain, blind: true}
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
		b.base[n.network] = p.place(b.total(n.network, ruleset.Counters{}), ruleset.Counters{}, n.rules)
	}
	for _, chain := range allChains() {
		p.edits = append(p.edits, *edits[chain])
	}
	b.settled = false
	return b.carryOut(ctx, p)
}

// remember is called when the kernel holds what is wanted; base is nil where
// the counters of networks that were there are as they were.
func (b *Backend) remember(want []entry, base map[string]ruleset.Counters) {
	b.installed, b.settled = want, true
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
	b.settleRecords(want)
}

const goBackTimeout = 20 * time.Second

// goBack brings the kernel back to what it held before a change that failed
// half-way, also where the change failed because its time was over.
func (b *Backend) goBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goBackTimeout)
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
