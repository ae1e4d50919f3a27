// Package nftables installs rules in the kernel through netlink, in the service's
// own table, inet libvirt_network. To add or remove networks is one transaction; a
// change of those in force is up to four, for what it adds comes before what it removes
// (steps). Counters keep their values through it. The table is created with the first
// network and deleted with the last; in between it is changed in place, because
// deleting and recreating it loses packets and lets untranslated ones out.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Config configures a Backend.
type Config struct {
	// Owned asks for a table that other processes can neither change nor
	// flush (NFT_TABLE_F_OWNER), and that outlives this process
	// (NFT_TABLE_F_PERSIST). It holds where Probe or Sync finds that the
	// kernel has both.
	Owned bool
	// NetNS is a descriptor of the network namespace, open for as long as the
	// backend is; 0 is the current one.
	NetNS int
	// StartValues returns what a network's totals begin at when it is new in the
	// table, so that totals never go back; nil means zero. It must not call
	// the backend.
	StartValues func(network string) ruleset.Counters
	// Host returns what the rules are to know of the host's interfaces; nil means
	// nothing. Each Apply looks at it, also with an empty change. It must not call
	// the backend.
	Host func() ruleset.Host
	// Log receives what an administrator may want to know; nil discards it.
	Log *slog.Logger
}

// Backend manages the service's table. It is safe for concurrent use; changes
// are made one after the other.
type Backend struct {
	config  Config
	log     *slog.Logger
	planner planner
	reader  reader
	base    func(uplink ruleset.Interface) ruleset.Skeleton

	// writing serialises changes. It guards the fields from flags to
	// closed.
	writing  sync.Mutex
	wire     wire
	flags    nftables.TableFlags // of the table, repeated in each batch
	possible nftables.TableFlags // of a new table, once probed
	probed   bool
	synced   bool // the table was synchronised once
	dirty    bool // installed may differ from the kernel
	closed   bool

	bystanders bystanders // as they are installed

	// state guards installed, so that counters can be read during a change.
	state     sync.RWMutex
	installed map[string]installed
}

// installed is one network as it was installed in the kernel.
type installed struct {
	part     ruleset.Part
	names    ruleset.Names
	counting []counting
	earlier  earlier
}

// counting is an element that counts.
type counting struct {
	element
	what ruleset.Counts
}

// Open connects to the kernel. It changes nothing: Sync does, and should be the
// first call, since an earlier process may have left its table.
func Open(cfg Config) (*Backend, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w, err := dial(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	return &Backend{
		config: cfg, log: cfg.Log, planner: newPlanner(), reader: reader{netNS: cfg.NetNS},
		base: ruleset.Base, wire: w, installed: make(map[string]installed),
	}, nil
}

// Close closes the connection. The rules stay in force.
func (b *Backend) Close() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.wire.close()
}

// PortID returns the netlink address that the backend's changes come from. A
// monitor recognises them by it, in the header of each event.
func (b *Backend) PortID() uint32 { return b.wire.portID() }

// Name returns the contract's name of the backend.
func (*Backend) Name() string { return choice.NFTables }

var errClosed = errors.New("the nftables backend is closed")

// Apply makes a change. A network whose rules are the same costs nothing, and one
// where only elements differ keeps its chains. After an error nothing has changed, with one exception:
// where the kernel's answer was lost, the next call reads the table first.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
	return b.applyParts(ctx, ruleset.Change{Set: compile(c.Set), Remove: c.Remove})
}

func compile(members []backend.Member) []ruleset.Part {
	parts := make([]ruleset.Part, 0, len(members))
	for _, m := range members {
		if part, ok := ruleset.Compile(m.Network, m.Index, m.Names...); ok {
			parts = append(parts, part)
		}
	}
	return parts
}

// applyParts is Apply for compiled networks. It retains their parts, which must
// not be changed afterwards.
func (b *Backend) applyParts(ctx context.Context, change ruleset.Change) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	if err := b.ensureSynced(ctx); err != nil {
		return err
	}
	err := b.apply(ctx, change)
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	// Something that should exist does not, or the reverse: another program may
	// have changed the table.
	report, syncErr := b.sync(ctx, b.parts())
	if syncErr != nil || !report.damaged() {
		return errors.Join(err, syncErr)
	}
	return b.apply(ctx, change)
}

func (b *Backend) ready(ctx context.Context) error {
	if b.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !b.probed {
		return b.probeFlags()
	}
	return nil
}

// ensureSynced makes sure that the kernel holds what is installed. A table that
// was never read is not taken to be empty: its networks would lose their rules.
func (b *Backend) ensureSynced(ctx context.Context) error {
	if !b.synced {
		o, err := b.reader.observe(ctx)
		if err != nil {
			return err
		}
		if o.exists {
			return fmt.Errorf("table %s is there from earlier: it has to be synchronised before it is changed", ruleset.TableName)
		}
		b.synced, b.dirty = true, false
	}
	if !b.dirty {
		return nil
	}
	if _, err := b.sync(ctx, b.parts()); err != nil {
		return fmt.Errorf("bringing table %s back to what is known: %w", ruleset.TableName, err)
	}
	return nil
}

// apply plans and commits a change, and then records it as installed. Where a later
// step of it fails, what the earlier ones did is undone.
func (b *Backend) apply(ctx context.Context, change ruleset.Change) error {
	s, set, bystanders, err := b.plan(change)
	if err != nil {
		return err
	}
	if len(b.installed) == 0 {
		b.flags = b.possible
	}
	begun := false
	for _, t := range []*transaction{&s.before, &s.now, &s.later, &s.last} {
		if t == &s.later {
			err = b.carry(ctx, t, set)
		}
		if err == nil {
			err = b.commit(t)
		}
		if err != nil && begun {
			b.dirty = true
			_, undo := b.sync(context.WithoutCancel(ctx), b.parts())
			err = errors.Join(err, undo)
		}
		if err != nil {
			return fmt.Errorf("changing table %s: %w", ruleset.TableName, err)
		}
		begun = begun || !t.empty()
	}
	b.bystanders = bystanders
	b.state.Lock()
	defer b.state.Unlock()
	for _, name := range change.Remove {
		delete(b.installed, name)
	}
	for _, in := range set {
		b.installed[in.part.Network] = in
	}
	return nil
}

// plan returns the transactions for a change, and what is installed after it.
func (b *Backend) plan(change ruleset.Change) (*steps, []installed, bystanders, error) {
	s := &steps{}
	left := len(b.installed)
	for _, name := range change.Remove {
		in, ok := b.installed[name]
		if !ok {
			continue
		}
		left--
		now, err := b.presentOf(in)
		if err != nil {
			return nil, nil, bystanders{}, err
		}
		b.planner.remove(&s.now, now)
		s.now.delCounters = append(s.now.delCounters, in.earlier.names(name)...)
	}
	if left == 0 && len(change.Set) == 0 {
		return &steps{now: transaction{drop: len(b.installed) > 0}}, nil, bystanders{}, nil
	}
	bystanders, err := b.planBystanders(&s.now, change)
	if err != nil {
		return nil, nil, bystanders, err
	}
	set := make([]installed, 0, len(change.Set))
	for _, part := range change.Set {
		in, err := b.planPart(s, part)
		if err != nil {
			return nil, nil, bystanders, err
		}
		set = append(set, in)
	}
	s.settle()
	return s, set, bystanders, nil
}

func (b *Backend) planPart(s *steps, part ruleset.Part) (installed, error) {
	old, known := b.installed[part.Network]
	if known && reflect.DeepEqual(old.part, part) {
		return old, nil
	}
	next, err := b.planner.installed(part)
	if err != nil {
		return next, err
	}
	var now present
	if known {
		if now, err = b.presentOf(old); err != nil {
			return next, err
		}
		for _, c := range old.part.Chains {
			now.chains[c.Name] = slices.ContainsFunc(part.Chains, func(n ruleset.Chain) bool { return reflect.DeepEqual(n, c) })
		}
		next.earlier = old.earlier
	} else {
		var list []recount
		list, next.earlier = b.starting(part.Network)
		s.now.recounts = append(s.now.recounts, list...)
	}
	return next, b.planner.converge(s, now, part)
}

// installed returns a network as it will be installed.
func (p planner) installed(part ruleset.Part) (installed, error) {
	in := installed{part: part, names: ruleset.NamesOf(part.Network), earlier: earlier{}}
	all, err := p.elements(part)
	for _, e := range all {
		if e.counts {
			in.counting = append(in.counting, counting{e, p.sets[e.set].Counts})
		}
	}
	return in, err
}

// presentOf returns what the kernel holds of an installed network.
func (b *Backend) presentOf(in installed) (present, error) {
	elements, err := b.planner.elements(in.part)
	now := present{chains: make(map[string]bool), elements: elements, counters: make(map[string]bool)}
	for _, c := range in.part.Chains {
		now.chains[c.Name] = true
	}
	for _, name := range in.part.Counters {
		now.counters[name] = true
	}
	return now, err
}

// bigBatchGC is the GC percentage while a big batch is encoded.
const bigBatchGC = 20

// commit sends one transaction. Where the kernel's answer was lost, it marks the
// installed state as dirty.
func (b *Backend) commit(t *transaction) error {
	if t.empty() {
		return nil
	}
	if t.big() {
		// A batch of a thousand networks takes some 40 MiB, most of it garbage
		// from encoding, and Go would keep that for minutes.
		defer debug.FreeOSMemory()
		defer debug.SetGCPercent(debug.SetGCPercent(bigBatchGC))
	}
	err := transact(b.wire, func(c *nftables.Conn) error { return t.queue(c, b.table()) })
	if errors.Is(err, errUnknown) {
		b.dirty = true
	}
	return err
}

func (b *Backend) table() nftables.Table {
	return nftables.Table{Family: nftables.TableFamilyINet, Name: ruleset.TableName, Flags: b.flags}
}

// parts returns the parts of all installed networks.
func (b *Backend) parts() []ruleset.Part {
	out := make([]ruleset.Part, 0, len(b.installed))
	for _, in := range b.installed {
		out = append(out, in.part)
	}
	return out
}
