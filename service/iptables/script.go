package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// script is what iptables-restore is given for one family. Each table's part
// comes into force whole; nat has two parts, so that whatever is let out is
// translated before it is and for as long as it is.
type script struct {
	early, mangle, filter, late []string
}

// section is the part for a chain's table.
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

// text is the script as iptables-restore --noflush --counters reads it, "" for
// nothing to do.
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

// scripts turns a plan into what each family's iptables-restore does.
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
	return v4, v6
}

// write puts one chain's edit into a script. A rule is deleted by what it
// says, never by its place, which another program may have moved.
func (e edit) write(s *script, start map[Rule]count) {
	for _, at := range e.stale {
		s.add(e.chain, true, "-D %s %s", e.chain.Name, e.lines[at].rule.spec())
	}
	for _, at := range e.drop {
		s.add(e.chain, false, "-D %s %s", e.chain.Name, e.lines[at].rule.spec())
	}
	if e.blind {
		e.toHead(s, start)
		return
	}
	if len(e.lines) == len(e.drop)+len(e.stale) && (len(e.stale) == 0 || e.chain.Table != tableNAT) {
		e.refill(s, start)
		return
	}
	// Places are doubled, so that there is room between two of them.
	rest := e.remaining()
	for _, in := range e.inserts {
		// Of two networks that go to the same place, the later comes above.
		at, _ := slices.BinarySearch(rest, 2*in.after+1)
		for i, r := range in.rules {
			s.add(e.chain, false, "%s-I %s %d %s", counters(start[r]), e.chain.Name, at+i+1, r.spec())
		}
		rest = slices.Insert(rest, at, slices.Repeat([]int{2*in.after + 1}, len(in.rules))...)
	}
}

// remaining are the places of the lines that stay where they are while rules
// are put in.
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

// refill fills an empty chain from the top, which takes iptables less time
// than to put each rule above the others.
func (e edit) refill(s *script, start map[Rule]count) {
	for _, in := range slices.Backward(e.inserts) {
		for _, r := range in.rules {
			s.add(e.chain, false, "%s-A %s %s", counters(start[r]), e.chain.Name, r.spec())
		}
	}
}

// toHead puts rules above all others. It names no place: for one, iptables-nft
// would read the whole chain.
func (e edit) toHead(s *script, start map[Rule]count) {
	for _, in := range e.inserts {
		for _, r := range slices.Backward(in.rules) {
			s.add(e.chain, false, "%s-I %s %s", counters(start[r]), e.chain.Name, r.spec())
		}
	}
}

// counters is what a rule's line begins with where its counters do not begin
// at zero.
func counters(n count) string {
	if n == (count{}) {
		return ""
	}
	return fmt.Sprintf("[%d:%d] ", n.packets, n.bytes)
}
