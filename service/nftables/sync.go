package nftables

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// slice is how many networks one transaction of Sync takes on. It bounds memory
// (12 MiB where one batch of 1,000 takes 50) and costs next to no time.
const slice = 50

// syncReport says what Sync found.
type syncReport struct {
	TableMissing bool     // there was none
	Rebuilt      bool     // the table could not be repaired in place
	Dormant      bool     // the table was switched off
	Skeleton     bool     // what all networks share was damaged
	Repaired     []string // networks whose own rules were missing or damaged, sorted
	Leftovers    int      // chains, sets, objects and elements that belonged to nothing
}

// all reports whether what all networks share was not as it should be.
func (r syncReport) all() bool { return r.TableMissing || r.Rebuilt || r.Dormant || r.Skeleton }

// damaged reports whether anything was not as it should be.
func (r syncReport) damaged() bool { return r.all() || len(r.Repaired) > 0 || r.Leftovers > 0 }

// Sync makes the table exactly that of the networks, whatever it was: missing,
// kept from an earlier process, changed by others. It works in place, with
// counters kept, and touches only what is wrong; only a table whose base chains
// or sets are of another make is built anew. With no networks there is no table.
func (b *Backend) Sync(ctx context.Context, all []backend.Member) (damaged []string, err error) {
	report, err := b.syncParts(ctx, compile(all))
	if !report.all() {
		return report.Repaired, err
	}
	for _, m := range all {
		damaged = append(damaged, m.Network.Name)
	}
	return damaged, err
}

// RemoveAll takes the table out, also one of an earlier process.
func (b *Backend) RemoveAll(ctx context.Context) error {
	_, err := b.syncParts(ctx, nil)
	return err
}

// syncParts is Sync for networks that are compiled.
func (b *Backend) syncParts(ctx context.Context, parts []ruleset.Part) (syncReport, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return syncReport{}, err
	}
	report, err := b.sync(ctx, parts)
	if len(parts) > slice {
		debug.FreeOSMemory()
	}
	return report, err
}

// Verify reads the table and names the networks whose rules are not in force
// as they should be: all, if what they share is damaged. It changes nothing.
func (b *Backend) Verify(ctx context.Context) (damaged []string, err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.closed {
		return nil, errClosed
	}
	o, err := b.reader.observe(ctx)
	if err != nil {
		return nil, err
	}
	broken, err := b.planner.brokenSkeleton(o)
	if err != nil {
		return nil, err
	}
	all := broken.any() || o.asleep() || o.judged(b.planner.base)
	for name, in := range b.installed {
		t := &transaction{}
		if err := b.planner.repair(t, o, in.part); err != nil {
			return nil, err
		}
		if all || !t.empty() {
			damaged = append(damaged, name)
		}
	}
	slices.Sort(damaged)
	return damaged, nil
}

// sync observes and repairs. Whatever happens, a failure leaves the state
// marked as unknown.
func (b *Backend) sync(ctx context.Context, parts []ruleset.Part) (syncReport, error) {
	o, err := b.reader.observe(ctx)
	if err != nil {
		return syncReport{}, err
	}
	b.dirty = true
	s := syncer{b: b, o: o, parts: parts, next: make(map[string]installed, len(parts))}
	b.chooseFlags(o)
	if err := s.run(ctx); err != nil {
		if errors.Is(err, unix.EPERM) && o.owner != 0 && o.owner != b.PortID() {
			err = &OwnedError{Port: o.owner, err: err}
		}
		return s.report, fmt.Errorf("bringing table %s in order: %w", ruleset.TableName, err)
	}
	slices.Sort(s.report.Repaired)
	b.state.Lock()
	b.installed = s.next
	b.state.Unlock()
	b.synced, b.dirty = true, false
	return s.report, nil
}

// OwnedError says that the table belongs to another process, which the kernel
// lets nobody else change (NFT_TABLE_F_OWNER).
type OwnedError struct {
	Port uint32 // the owner's netlink port: mostly its process ID
	err  error
}

func (e *OwnedError) Error() string { return fmt.Sprintf("netlink port %d owns it: %v", e.Port, e.err) }

// Unwrap gives what the kernel said.
func (e *OwnedError) Unwrap() error { return e.err }

// syncer is one run of Sync.
type syncer struct {
	b      *Backend
	o      *observed
	parts  []ruleset.Part
	next   map[string]installed
	report syncReport
}

func (s *syncer) run(ctx context.Context) error {
	if len(s.parts) == 0 {
		s.report.Leftovers = len(s.o.chains) + len(s.o.sets) + len(s.o.counters) + len(s.o.elements) + len(s.o.objects) + len(s.o.flowtables)
		return s.b.commit(&transaction{drop: s.o.exists})
	}
	s.report.TableMissing, s.report.Dormant = !s.o.exists, s.o.asleep()
	broken, err := s.b.planner.brokenSkeleton(s.o)
	if err != nil {
		return err
	}
	if err := s.takeOver(); err != nil {
		return err
	}
	if s.o.exists && (broken.unusable || s.usurped()) {
		return s.rebuild()
	}
	t := &transaction{}
	if s.o.exists {
		s.report.Skeleton = broken.any()
		t.sets, t.chains, t.refill = broken.sets, broken.chains, broken.refill
	} else {
		s.b.planner.skeleton(t)
	}
	if err := s.repairAll(ctx, t); err != nil {
		return err
	}
	return s.sweep()
}

// usurped reports whether somebody made a base chain under a network's name.
func (s *syncer) usurped() bool {
	return slices.ContainsFunc(s.parts, func(p ruleset.Part) bool {
		return slices.ContainsFunc(p.Chains, func(c ruleset.Chain) bool {
			have := s.o.chains[c.Name]
			return have != nil && have.base
		})
	})
}

// rebuild deletes the table and makes it again in one transaction: the last
// resort, since packets are lost. Totals are carried over.
func (s *syncer) rebuild() error {
	s.report.Rebuilt = true
	t := &transaction{rebuild: true}
	totals := s.o.counters
	s.o = &observed{}
	s.b.planner.skeleton(t)
	for _, part := range s.parts {
		if err := s.add(t, part); err != nil {
			return err
		}
	}
	for i, c := range t.counters {
		if had, ok := totals[c.name]; ok {
			t.counters[i] = had
		}
	}
	s.b.flags = s.b.possible
	return s.b.commit(t)
}

// takeOver makes a table ours that an earlier process left, and wakes one that
// was made dormant. It is a transaction of its own: the kernel takes no new base
// chain (EINVAL) in a batch that changes the table's flags.
func (s *syncer) takeOver() error {
	ours := s.b.flags&nftables.TableFlagOwner == 0 || s.o.owner == s.b.PortID()
	if !s.o.exists || ours && !s.o.asleep() {
		return nil
	}
	return s.b.commit(&transaction{takeOver: true})
}

// repairAll brings all networks in order, some at a time, and with the first
// of them what they share.
func (s *syncer) repairAll(ctx context.Context, t *transaction) error {
	for group := range slices.Chunk(s.parts, slice) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, part := range group {
			if err := s.add(t, part); err != nil {
				return err
			}
		}
		if err := s.b.commit(t); err != nil {
			return err
		}
		t = &transaction{}
	}
	return nil
}

// add plans one network and notes what becomes of it.
func (s *syncer) add(t *transaction, part ruleset.Part) error {
	if _, twice := s.next[part.Network]; twice {
		return fmt.Errorf("network %s is there twice", part.Network)
	}
	own := &transaction{}
	if err := s.b.planner.repair(own, s.o, part); err != nil {
		return err
	}
	if s.o.exists && !own.empty() {
		s.report.Repaired = append(s.report.Repaired, part.Network)
	}
	t.add(own)
	s.next[part.Network] = installed{part, ruleset.NamesOf(part.Network)}
	return nil
}

// sweep takes out what belongs to nothing. It comes last, and all at once: only
// then does nothing lead to a stray chain any more, not even by a foreign hand.
func (s *syncer) sweep() error {
	t := &transaction{}
	want, err := s.wanted()
	if err != nil {
		return err
	}
	for at, what := range s.o.elements {
		if _, known := s.b.planner.sets[at.set]; known && !want.places[at] {
			t.delElements = append(t.delElements, element{at, what})
		}
	}
	for name := range s.o.chains {
		if !want.chains[name] {
			t.delChains = append(t.delChains, name)
			// A stranger's base chain judges every network's packets.
			s.report.Skeleton = s.report.Skeleton || s.o.chains[name].base
		}
	}
	for name := range s.o.sets {
		if _, known := s.b.planner.sets[name]; !known {
			t.delSets = append(t.delSets, name)
		}
	}
	for name := range s.o.counters {
		if !want.counters[name] {
			t.delCounters = append(t.delCounters, name)
		}
	}
	t.delObjects, t.delFlowtables = s.o.objects, s.o.flowtables
	s.report.Skeleton = s.report.Skeleton || len(s.o.flowtables) > 0
	s.report.Leftovers = len(t.delElements) + len(t.delChains) + len(t.delSets) + len(t.delCounters) + len(t.delObjects) + len(t.delFlowtables)
	return s.b.commit(t)
}

type wanted struct {
	places           map[place]bool
	chains, counters map[string]bool
}

func (s *syncer) wanted() (wanted, error) {
	w := wanted{places: make(map[place]bool), chains: make(map[string]bool), counters: make(map[string]bool)}
	for _, c := range s.b.planner.base.Chains {
		w.chains[c.Name] = true
	}
	for _, in := range s.next {
		elements, err := s.b.planner.elements(in.part)
		if err != nil {
			return w, err
		}
		for _, e := range elements {
			w.places[e.place] = true
		}
		for _, c := range in.part.Chains {
			w.chains[c.Name] = true
		}
		for _, name := range in.part.Counters {
			w.counters[name] = true
		}
	}
	return w, nil
}
