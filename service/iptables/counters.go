package iptables

import (
	"context"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// count is one rule's counter.
type count struct{ packets, bytes uint64 }

// counted reports whether rules of a chain count towards a network's totals.
func counted(c Chain) bool {
	return c.purpose() == ChainForwardIn || c.purpose() == ChainForwardOut
}

// class is which of a network's totals a rule counts towards. libvirt's
// destination chain comes first, so that what it accepts never reaches the
// source's: traffic between two networks counts for the destination alone.
type class int

const (
	uncounted class = iota
	fromGuest
	toGuest
	rejectedFrom
	rejectedTo
)

var classes = []class{fromGuest, toGuest, rejectedFrom, rejectedTo}

func classOf(r Rule) class {
	switch purpose := r.purpose(); {
	case purpose == ChainForwardOut && r.Target == targetAccept:
		return fromGuest
	case purpose == ChainForwardIn && r.Target == targetAccept:
		return toGuest
	case purpose == ChainForwardOut:
		return rejectedFrom
	case purpose == ChainForwardIn:
		return rejectedTo
	}
	return uncounted
}

func get(c ruleset.Counters, k class) count {
	switch k {
	case fromGuest:
		return count{c.FromGuestPackets, c.FromGuestBytes}
	case toGuest:
		return count{c.ToGuestPackets, c.ToGuestBytes}
	case rejectedFrom:
		return count{c.RejectedFromGuestPackets, 0}
	case rejectedTo:
		return count{c.RejectedToGuestPackets, 0}
	}
	return count{}
}

func add(c *ruleset.Counters, k class, n count) {
	switch k {
	case fromGuest:
		c.FromGuestPackets += n.packets
		c.FromGuestBytes += n.bytes
	case toGuest:
		c.ToGuestPackets += n.packets
		c.ToGuestBytes += n.bytes
	case rejectedFrom:
		c.RejectedFromGuestPackets += n.packets
	case rejectedTo:
		c.RejectedToGuestPackets += n.packets
	}
}

func sumCounters(a, b ruleset.Counters) ruleset.Counters {
	for _, k := range classes {
		add(&a, k, get(b, k))
	}
	return a
}

func excess(a, b uint64) uint64 {
	if a > b {
		return a - b
	}
	return 0
}

func maxCounters(a, b ruleset.Counters) ruleset.Counters {
	return ruleset.Counters{
		FromGuestPackets: max(a.FromGuestPackets, b.FromGuestPackets), FromGuestBytes: max(a.FromGuestBytes, b.FromGuestBytes),
		ToGuestPackets: max(a.ToGuestPackets, b.ToGuestPackets), ToGuestBytes: max(a.ToGuestBytes, b.ToGuestBytes),
		RejectedFromGuestPackets: max(a.RejectedFromGuestPackets, b.RejectedFromGuestPackets),
		RejectedToGuestPackets:   max(a.RejectedToGuestPackets, b.RejectedToGuestPackets),
	}
}

// carryCounts transfers the counts of deleted rules to inserted ones, so that
// totals never go back. A count without a rule of its class, as in a network that
// has become isolated, is kept in base.
func (p *plan) carryCounts(edits map[Chain]*edit, g goal) {
	p.start = make(map[Rule]count)
	p.base = make(map[string]ruleset.Counters)
	seen, kept := g.seen(edits)
	inserted := make(map[string][]Rule)
	for _, c := range allChains() {
		for _, in := range edits[c].inserts {
			inserted[in.network] = append(inserted[in.network], in.rules...)
		}
	}
	for _, n := range g.entries {
		var total ruleset.Counters
		if n.network != g.reset {
			total = g.totals(n.network, seen[n.network])
		}
		p.base[n.network] = p.assignCounts(total, kept[n.network], inserted[n.network])
	}
}

// seen returns the counts of each network's rules in the kernel: of all, and of
// those that stay.
func (g goal) seen(edits map[Chain]*edit) (seen, kept map[string]ruleset.Counters) {
	seen, kept = make(map[string]ruleset.Counters), make(map[string]ruleset.Counters)
	for c, e := range edits {
		if !counted(c) {
			continue
		}
		dropped := make(map[int]bool)
		for _, at := range e.drop {
			dropped[at] = true
		}
		for at, l := range e.lines {
			network, ours := g.owner(l)
			if !ours {
				continue
			}
			n := count{l.packets, l.bytes}
			all, rest := seen[network], kept[network]
			add(&all, classOf(l.rule), n)
			seen[network] = all
			if _, wanted := g.wanted[l.rule]; wanted && !dropped[at] {
				add(&rest, classOf(l.rule), n)
				kept[network] = rest
			}
		}
	}
	return seen, kept
}

// assignCounts assigns what is missing from a total to the first new rule of each
// class, and returns the rest.
func (p *plan) assignCounts(total, kept ruleset.Counters, inserted []Rule) (left ruleset.Counters) {
	for _, k := range classes {
		want, have := get(total, k), get(kept, k)
		missing := count{excess(want.packets, have.packets), excess(want.bytes, have.bytes)}
		if missing == (count{}) {
			continue
		}
		placed := false
		for _, r := range inserted {
			if classOf(r) == k {
				p.start[r], placed = missing, true
				break
			}
		}
		if !placed {
			add(&left, k, missing)
		}
	}
	return left
}

// Counters returns the totals of all networks at once: iptables takes as long for
// one as for all.
func (b *Backend) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]ruleset.Counters, len(b.installed))
	if len(b.installed) == 0 {
		return out, nil
	}
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	l, err := b.families.listTable(ctx, tableFilter)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]ruleset.Counters)
	g := newGoal(b.installed, nil)
	for c, lines := range l.chains {
		for _, line := range lines {
			if network, ours := g.owner(line); ours && counted(c) {
				all := seen[network]
				add(&all, classOf(line.rule), count{line.packets, line.bytes})
				seen[network] = all
			}
		}
	}
	for _, n := range b.installed {
		// If another program deletes rules, their counts are missing until a
		// repair restores both.
		out[n.network] = maxCounters(sumCounters(b.base[n.network], seen[n.network]), b.last[n.network])
		b.last[n.network] = out[n.network]
	}
	return out, nil
}

// ResetCounters sets a network's totals back to zero.
func (b *Backend) ResetCounters(ctx context.Context, network string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	if !b.synced {
		return errNotSynced
	}
	if _, err := b.converge(ctx, b.installed, network); err != nil {
		return fmt.Errorf("resetting counters of network %s: %w", network, err)
	}
	delete(b.last, network)
	return nil
}
