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

// syncBatch is how many networks one transaction of Sync covers. It bounds memory
// (12 MiB where one batch of 1,000 takes 50) and costs next to no time.
const syncBatch = 50

// syncReport is what Sync found.
type syncReport struct {
	TableMissing bool     // there was none
	Rebuilt      bool     // the table could not be repaired in place
	Dormant      bool     // the table was switched off
	Skeleton     bool     // the skeleton, which all networks share, was damaged
	Repaired     []string // networks whose own rules were missing or damaged, sorted
	Leftovers    int      // chains, sets, objects and elements that belonged to no network
}

// all reports whether all networks were affected.
func (r syncReport) all() bool { return r.TableMissing || r.Rebuilt || r.Dormant || r.Skeleton }

// damaged reports whether anything was wrong.
func (r syncReport) damaged() bool { return r.all() || len(r.Repaired) > 0 || r.Leftovers > 0 }

// Sync makes the table match the networks exactly, whatever it was: missing, left
// by an earlier process, changed by others. It works in place, keeps counters and
// touches only what is wrong; only a table whose base chains or sets have the
// wrong type is rebuilt from scratch. With no networks there is no table.
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

// RemoveAll deletes the table, also one of an earlier process.
func (b *Backend) RemoveAll(ctx context.Context) error {
	_, err := b.syncParts(ctx, nil)
	return err
}

// syncParts is Sync for compiled networks.
func (b *Backend) syncParts(ctx context.Context, parts []ruleset.Part) (syncReport, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return syncReport{}, err
	}
	report, err := b.sync(ctx, parts)
	if len(parts) > syncBatch {
		debug.FreeOSMemory()
	}
	return report, err
}

// Verify reads the table and returns the networks whose rules are not in force
// as they should be: all, if the skeleton is damaged. It changes nothing.
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
	base := b.base(b.bystanders.uplink)
	broken, err := b.planner.brokenSkeleton(o, base)
	if err != nil {
		return nil, err
	}
	all := broken.any() || o.strangers(b.bystanders) || o.dormant() || o.hasExtraBaseChain(base)
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

// sync reads the table and repairs it. If a repair fails, the installed state
// stays marked as dirty.
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
	b.bystanders = s.bystanders
	b.state.Lock()
	b.installed = s.next
	b.state.Unlock()
	b.synced, b.dirty = true, false
	return s.report, nil
}

// OwnedError means that the table belongs to another process, and that the
// kernel lets no other change it (NFT_TABLE_F_OWNER).
type OwnedError struct {
	Port uint32 // the owner's netlink port: mostly its process ID
	err  error
}

func (e *OwnedError) Error() string { return fmt.Sprintf("netlink port %d owns it: %v", e.Port, e.err) }

// Unwrap returns the kernel's error.
func (e *OwnedError) Unwrap() error { return e.err }

// syncer is one run of Sync.
type syncer struct {
	b      *Backend
	o      *observed
	parts  []ruleset.Part
	next   map[string]installed
	report syncReport

	bystanders bystanders
}

func (s *syncer) run(ctx context.Context) (err error) {
	if len(s.parts) == 0 {
		s.report.Leftovers = len(s.o.chains) + len(s.o.sets) + len(s.o.counters) + len(s.o.elements) + len(s.o.objects) + len(s.o.flowtables)
		return s.b.commit(&transaction{drop: s.o.exists})
	}
	s.report.TableMissing, s.report.Dormant = !s.o.exists, s.o.dormant()
	if s.bystanders, err = s.b.bystandersOf(s.parts); err != nil {
		return err
	}
	base := s.b.base(s.bystanders.uplink)
	broken, err := s.b.planner.brokenSkeleton(s.o, base)
	if err != nil {
		return err
	}
	if err := s.takeOver(); err != nil {
		return err
	}
	if s.o.exists && (broken.unusable || s.hasForeignBaseChain()) {
		return s.rebuild()
	}
	t := &transaction{}
	if s.o.exists {
		if s.report.Skeleton, err = s.damagedSkeleton(broken); err != nil {
			return err
		}
		t.sets, t.chains, t.refill = broken.sets, broken.chains, broken.refill
	} else {
		skeleton(t, base)
	}
	swapElements(t, s.o.bystanders(), s.bystanders.elements)
	if err := s.repairAll(ctx, t); err != nil {
		return err
	}
	return s.sweep()
}

// damagedSkeleton reports whether another program changed what all networks share.
// What differs since the host's own interfaces did is no damage.
func (s *syncer) damagedSkeleton(now broken) (bool, error) {
	if !s.b.synced || s.bystanders.uplink == s.b.bystanders.uplink {
		return now.any() || s.b.synced && s.o.strangers(s.b.bystanders), nil
	}
	before, err := s.b.planner.brokenSkeleton(s.o, s.b.base(s.b.bystanders.uplink))
	return before.any() || s.o.strangers(s.b.bystanders), err
}

// hasForeignBaseChain reports whether another program made a base chain with the
// name of a network's chain.
func (s *syncer) hasForeignBaseChain() bool {
	return slices.ContainsFunc(s.parts, func(p ruleset.Part) bool {
		return slices.ContainsFunc(p.Chains, func(c ruleset.Chain) bool {
			have := s.o.chains[c.Name]
			return have != nil && have.base
		})
	})
}

// rebuild deletes and recreates the table in one transaction: the last resort,
// since packets are lost. Totals are carried over.
func (s *syncer) rebuild() error {
	s.report.Rebuilt = true
	t := &transaction{rebuild: true}
	had := s.o
	s.o = &observed{}
	skeleton(t, s.b.base(s.bystanders.uplink))
	swapElements(t, nil, s.bystanders.elements)
	for _, part := range s.parts {
		if err := s.add(t, part); err != nil {
			return err
		}
	}
	t.recounts = append(t.recounts, s.recount(had, func(elementKey) bool { return false })...)
	s.b.flags = s.b.possible
	return s.b.commit(t)
}

// takeOver claims a table that an earlier process left, and activates a dormant
// one. It is a transaction of its own: the kernel takes no new base chain
// (EINVAL) in a batch that changes the table's flags.
func (s *syncer) takeOver() error {
	ours := s.b.flags&nftables.TableFlagOwner == 0 || s.o.owner == s.b.PortID()
	if !s.o.exists || ours && !s.o.dormant() {
		return nil
	}
	return s.b.commit(&transaction{takeOver: true})
}

// repairAll repairs all networks in batches. The first batch has t too, which
// repairs the skeleton.
func (s *syncer) repairAll(ctx context.Context, t *transaction) error {
	for group := range slices.Chunk(s.parts, syncBatch) {
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

// add plans one network and records the result in the report and in next.
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
	next, err := s.b.planner.installed(part)
	s.next[part.Network] = next
	return err
}

// sweep deletes what belongs to no network. It comes last: only then does nothing lead
// to a stray chain, not even a rule or element that another program added. Elements go
// before the chains of an earlier version that looked at them, and those that say what is
// translated after those that say what may leave.
func (s *syncer) sweep() error {
	want, err := s.wanted()
	if err != nil {
		return err
	}
	var sides, nat transaction
	for key, value := range s.o.elements {
		if _, known := s.b.planner.sets[key.set]; !known || key.set == ruleset.SetBystandersID || want.keys[key] {
			continue
		}
		if ruleset.Translates(key.set) {
			nat.delElements = append(nat.delElements, element{key, value})
		} else {
			sides.delElements = append(sides.delElements, element{key, value})
		}
	}
	s.report.Leftovers = len(sides.delElements) + len(nat.delElements)
	stays := func(key elementKey) bool { return want.keys[key] && s.o.elements[key].counts }
	sides.recounts = s.recount(s.o, stays)
	t := s.strays(want)
	s.report.Leftovers += len(t.delChains) + len(t.delSets) + len(t.delCounters) + len(t.delObjects) + len(t.delFlowtables)
	for _, step := range []*transaction{&sides, &nat, t} {
		if err := s.b.commit(step); err != nil {
			return err
		}
	}
	return nil
}

// strays returns what deletes all but elements that belongs to no network.
func (s *syncer) strays(want wanted) *transaction {
	t := &transaction{}
	for name := range s.o.chains {
		if !want.chains[name] {
			t.delChains = append(t.delChains, name)
			// Every network's packets pass through a foreign base chain.
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
	return t
}

type wanted struct {
	keys             map[elementKey]bool
	chains, counters map[string]bool
}

func (s *syncer) wanted() (wanted, error) {
	w := wanted{keys: make(map[elementKey]bool), chains: make(map[string]bool), counters: make(map[string]bool)}
	for _, c := range s.b.base(s.bystanders.uplink).Chains {
		w.chains[c.Name] = true
	}
	for _, in := range s.next {
		elements, err := s.b.planner.elements(in.part)
		if err != nil {
			return w, err
		}
		for _, e := range elements {
			w.keys[e.elementKey] = true
		}
		for _, c := range in.part.Chains {
			w.chains[c.Name] = true
		}
		for _, name := range in.part.Counters {
			w.counters[name] = true
		}
		for _, what := range ruleset.AllCounts() {
			w.counters[in.names.Earlier(what)] = true
		}
	}
	return w, nil
}
