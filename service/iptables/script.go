package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// script is the input of iptables-restore for one family. Each table's part takes
// effect atomically; nat has two parts, so that traffic is translated before it is
// accepted and for as long as it is.
type script struct {
	early, mangle, filter, late []string
}

// section returns the part for a chain's table.
func (s *script) section(c Chain, late bool) *[]string {
	switch {
	case c.Table == tableMangle:
		return &s.mangle
	case c.Table == tableFilter:
		return &s.filter
	case late:
		return &s.late
	}
	return &s.early
}

func (s *script) add(c Chain, late bool, format string, args ...any) {
	section := s.section(c, late)
	*section = append(*section, fmt.Sprintf(format, args...))
}

// text returns the script as iptables-restore --noflush --counters reads it, "" if
// there is nothing to do.
func (s script) text() string {
	var b strings.Builder
	for _, part := range []struct {
		table string
		lines []string
	}{{tableNAT, s.early}, {tableMangle, s.mangle}, {tableFilter, s.filter}, {tableNAT, s.late}} {
		if len(part.lines) > 0 {
			b.WriteString("*" + part.table + "\n")
			for _, l := range part.lines {
				b.WriteString(l + "\n")
			}
			b.WriteString("COMMIT\n")
		}
	}
	return b.String()
}

// scripts returns a plan's script for each family.
func (p plan) scripts() (v4, v6 script) {
	of := func(c Chain) *script {
		if c.IPv6 {
			return &v6
		}
		return &v4
	}
	for _, c := range p.create {
		of(c).add(c, false, "-N %s", c.Name)
	}
	for _, e := range p.edits {
		e.write(of(e.chain), p.start)
	}
	for _, c := range p.remove {
		of(c).add(c, true, "-X %s", c.Name)
	}
	for _, c := range p.left {
		of(c).add(c, true, "-F %s", c.Name)
		of(c).add(c, true, "-X %s", c.Name)
	}
	return v4, v6
}

// write adds one chain's edit to a script. A rule is deleted by its content, never
// by its position, which another program may have changed.
func (e edit) write(s *script, start map[Rule]count) {
	for _, at := range e.stale {
		s.add(e.chain, true, "-D %s %s", e.chain.Name, e.lines[at].rule.spec())
	}
	for _, at := range e.drop {
		s.add(e.chain, false, "-D %s %s", e.chain.Name, e.lines[at].rule.spec())
	}
	if e.headOnly {
		e.insertAtHead(s, start)
		return
	}
	if e.refills() {
		e.refill(s, start)
		return
	}
	// Positions are doubled, so that there is room between two of them.
	rest := e.remaining()
	for _, in := range e.inserts {
		// Of two networks at the same position, the later goes above.
		at, _ := slices.BinarySearch(rest, 2*in.after+1)
		for i, r := range in.rules {
			s.add(e.chain, false, "%s-I %s %d %s", counters(start[r]), e.chain.Name, at+i+1, r.spec())
		}
		rest = slices.Insert(rest, at, slices.Repeat([]int{2*in.after + 1}, len(in.rules))...)
	}
}

// written is a rule of a network's in a script.
type written struct {
	network string
	rule    Rule
}

// inserted returns the rules that scripts insert into each chain, in their order there.
func (p plan) inserted() map[Chain][]written {
	out := make(map[Chain][]written)
	for _, e := range p.edits {
		inserts := e.inserts
		if !e.headOnly && e.refills() {
			inserts = slices.Clone(inserts)
			slices.Reverse(inserts)
		}
		for _, in := range inserts {
			first := len(out[e.chain])
			for _, r := range in.rules {
				out[e.chain] = append(out[e.chain], written{in.network, r})
			}
			if e.headOnly {
				slices.Reverse(out[e.chain][first:])
			}
		}
	}
	return out
}

// refills reports whether the chain is empty by the time its rules are inserted.
func (e edit) refills() bool {
	return len(e.lines) == len(e.drop)+len(e.stale) && (len(e.stale) == 0 || e.chain.Table != tableNAT)
}

// remaining returns the positions of the lines that stay while rules are inserted.
func (e edit) remaining() []int {
	gone := make(map[int]bool)
	for _, at := range e.drop {
		gone[at] = true
	}
	if e.chain.Table != tableNAT {
		for _, at := range e.stale {
			gone[at] = true
		}
	}
	var rest []int
	for at := range e.lines {
		if !gone[at] {
			rest = append(rest, 2*at)
		}
	}
	return rest
}

// refill appends to an empty chain, which takes iptables less time than to insert
// each rule above the others.
func (e edit) refill(s *script, start map[Rule]count) {
	for _, in := range slices.Backward(e.inserts) {
		for _, r := range in.rules {
			s.add(e.chain, false, "%s-A %s %s", counters(start[r]), e.chain.Name, r.spec())
		}
	}
}

// insertAtHead inserts rules above all others. It names no position: for one,
// iptables-nft would read the whole chain.
func (e edit) insertAtHead(s *script, start map[Rule]count) {
	for _, in := range e.inserts {
		for _, r := range slices.Backward(in.rules) {
			s.add(e.chain, false, "%s-I %s %s", counters(start[r]), e.chain.Name, r.spec())
		}
	}
}

// counters returns the prefix of a rule's line if its counters do not begin at
// zero.
func counters(n count) string {
	if n == (count{}) {
		return ""
	}
	return fmt.Sprintf("[%d:%d] ", n.packets, n.bytes)
}
