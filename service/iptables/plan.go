package iptables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// entry is one network as it should be in the kernel.
type entry struct {
	network string
	rules   []Rule
	theirs  []Rule // what libvirt makes for it, where libvirt has it too
}

// goal is what the kernel should hold.
type goal struct {
	entries []entry         // in the order in which they were started
	wanted  map[Rule]int    // the entry of each rule that should be there
	ours    map[Rule]string // the network of each rule that may be the service's
	theirs  map[Rule]bool   // what libvirt makes for networks that it has
	// libvirtActive: libvirt may need its chains, and may be adding or deleting
	// rules right now.
	libvirtActive bool
	totals        func(network string, seen ruleset.Counters) ruleset.Counters
	reset         string // a network whose counters restart at zero
}

// newGoal returns a goal; recorded is what was installed earlier.
func newGoal(entries []entry, recorded map[string][]Rule) goal {
	g := goal{entries: entries, wanted: make(map[Rule]int), ours: make(map[Rule]string), theirs: make(map[Rule]bool)}
	for network, rules := range recorded {
		for _, r := range rules {
			g.ours[r] = network
		}
	}
	for i, n := range entries {
		for _, r := range n.rules {
			g.wanted[r], g.ours[r] = i, n.network
		}
		for _, r := range n.theirs {
			g.theirs[r] = true
		}
	}
	return g
}

// needs reports whether networks have rules in libvirt's chains, and in those
// beside them.
func needs(entries []entry) (libvirts, beside bool) {
	for _, n := range entries {
		libvirts = libvirts || n.theirs == nil
		beside = beside || n.theirs != nil
	}
	return libvirts, beside
}

func (g goal) owner(l line) (network string, ours bool) {
	if !l.known {
		return "", false
	}
	network, ours = g.ours[l.rule]
	return network, ours
}

// plan is what has to be done for a goal.
type plan struct {
	edits   []edit
	create  []Chain
	remove  []Chain
	left    []Chain        // for new rules, which a process that was killed left
	start   map[Rule]count // counters of inserted rules
	base    map[string]ruleset.Counters
	damaged map[string]bool
}

// edit is what happens to one chain.
type edit struct {
	chain    Chain
	lines    []line
	stale    []int // positions of rules of ours that are no longer wanted
	drop     []int // positions of rules that are inserted again elsewhere
	inserts  []insert
	headOnly bool // the chain was not listed: insert at its head
}

// insert is a network's rules, or the jumps (for no network).
type insert struct {
	network string
	rules   []Rule
	after   int // position in lines after which they go, -1 for the head
}

func makePlan(l listing, g goal) plan {
	p := plan{damaged: make(map[string]bool)}
	libvirts, beside := needs(g.entries)
	edits := make(map[Chain]*edit)
	for _, c := range allChains() {
		edits[c] = &edit{chain: c, lines: l.chains[c]}
		if needed := c.isBeside() && beside || !c.isBeside() && libvirts; needed && !l.has(c) {
			p.create = append(p.create, c)
		}
	}
	for c := range l.chains {
		if c.Name == newChain {
			p.left = append(p.left, c)
		}
	}
	p.compare(edits, g)
	p.carryCounts(edits, g)
	after := l.after(edits)
	dropLibvirts := !libvirts && !g.libvirtActive && !after.used(false)
	dropBeside := !beside && !after.used(true)
	for _, parent := range parents() {
		e := edit{chain: parent, lines: l.chains[parent]}
		e.ensureJumps(libvirts, beside)
		e.removeJumps(dropLibvirts, dropBeside)
		if len(e.inserts) > 0 {
			theirs := jumpsOf(parent, false)
			p.markDamaged(g, !e.inOrder(e.positionsOf(theirs), theirs))
		}
		if !e.empty() {
			p.edits = append(p.edits, e)
		}
	}
	for _, c := range allChains() {
		if e := edits[c]; !e.empty() {
			p.edits = append(p.edits, *e)
		}
		if drop := c.isBeside() && dropBeside || !c.isBeside() && dropLibvirts; drop && l.has(c) {
			p.remove = append(p.remove, c)
		}
	}
	return p
}

// markDamaged records the networks whose jumps were wrong: those beside libvirt's,
// or all if libvirt's jumps were wrong too.
func (p *plan) markDamaged(g goal, all bool) {
	for _, n := range g.entries {
		if all || n.theirs != nil {
			p.damaged[n.network] = true
		}
	}
}

func (e edit) empty() bool { return len(e.stale) == 0 && len(e.drop) == 0 && len(e.inserts) == 0 }

// compare finds, chain by chain, what is missing, misplaced, duplicate or no longer
// wanted.
func (p *plan) compare(edits map[Chain]*edit, g goal) {
	positions := make(map[Chain]map[int][]int, len(edits))
	before := make(map[Chain]map[string]int, len(edits)) // positions of stale rules
	for c, e := range edits {
		positions[c], before[c] = make(map[int][]int), make(map[string]int)
		for at, l := range e.lines {
			if i, wanted := g.wanted[l.rule]; l.known && wanted {
				positions[c][i] = append(positions[c][i], at)
			} else if network, ours := g.owner(l); ours {
				if g.theirs[l.rule] && !e.hasDuplicateBelow(at) {
					continue // libvirt's by now, of which ours was a copy
				}
				e.stale = append(e.stale, at)
				if _, is := before[c][network]; !is {
					before[c][network] = at
				}
			}
		}
	}
	for i, n := range g.entries {
		for c, rules := range byChain(n.rules) {
			e, at := edits[c], positions[c][i]
			inOrder := e.inOrder(at, rules) || g.libvirtActive && e.hasInOrder(at, rules)
			if inOrder && (n.network != g.reset || !counted(c)) {
				continue
			}
			after := g.insertionPoint(i, positions[c])
			if old, is := before[c][n.network]; is {
				after = old
			}
			e.insert(n.network, rules, at, after)
			p.damaged[n.network] = true
		}
	}
}

// insertionPoint returns where a network's rules go if none of them exists: libvirt
// has networks that were started later above earlier ones, and puts a new one at
// the head.
func (g goal) insertionPoint(i int, positions map[int][]int) (after int) {
	later := -1
	for j := i + 1; j < len(g.entries) && len(positions) > 0 && later < 0; j++ {
		if at := positions[j]; len(at) > 0 {
			later = slices.Max(at)
		}
	}
	if later < 0 {
		return -1
	}
	for j := i - 1; j >= 0; j-- {
		if at := positions[j]; len(at) > 0 {
			return slices.Min(at) - 1
		}
	}
	return later
}

func byChain(rules []Rule) map[Chain][]Rule {
	out := make(map[Chain][]Rule)
	for _, r := range rules {
		out[r.Chain] = append(out[r.Chain], r)
	}
	return out
}

// inOrder reports whether the lines at the positions are exactly these rules. Other
// programs' rules may be between them.
func (e edit) inOrder(positions []int, rules []Rule) bool {
	return slices.EqualFunc(positions, rules, func(at int, r Rule) bool { return e.lines[at].rule == r })
}

// hasInOrder reports whether rules are among the lines at the positions in their
// order: when libvirt starts a network it inserts its own, equal rules above them
// before it reports the network.
func (e edit) hasInOrder(positions []int, rules []Rule) bool {
	for _, at := range positions {
		if len(rules) > 0 && e.lines[at].rule == rules[0] {
			rules = rules[1:]
		}
	}
	return len(rules) == 0
}

// hasDuplicateBelow reports whether the rule of a line occurs again below it.
func (e edit) hasDuplicateBelow(at int) bool {
	return slices.ContainsFunc(e.lines[at+1:], func(l line) bool { return l.known && l.rule == e.lines[at].rule })
}

// insert puts rules where the first of them was, so that others' rules above them
// stay above; if there was none, after the given position.
func (e *edit) insert(network string, rules []Rule, positions []int, after int) {
	if len(positions) > 0 {
		after = positions[0]
	}
	e.drop = append(e.drop, positions...)
	e.inserts = append(e.inserts, insert{network, rules, after})
}

// ensureJumps makes sure that a parent jumps to the chains that are needed. If no
// network needs libvirt's chains, libvirt's jumps stay where they are.
func (e *edit) ensureJumps(libvirts, beside bool) {
	theirs, own := jumpsOf(e.chain, false), jumpsOf(e.chain, true)
	switch {
	case libvirts && beside:
		e.ensureAllJumps(interleave(own, theirs))
	case libvirts:
		e.ensureAllJumps(theirs)
	case beside:
		e.ensureBesideJumps(own, theirs)
	}
}

func (e *edit) ensureAllJumps(jumps []Rule) {
	if positions := e.positionsOf(jumps); !e.inOrder(positions, jumps) {
		e.insert("", jumps, positions, -1)
	}
}

// ensureBesideJumps inserts jumps among libvirt's, which stay, as interleave does.
func (e *edit) ensureBesideJumps(own, theirs []Rule) {
	positions, fixed := e.positionsOf(own), e.positionsOf(theirs)
	if e.inOrder(positions, own) && e.besideInterleaved(positions, theirs) {
		return
	}
	e.drop = append(e.drop, positions...)
	first := -1
	if len(fixed) > 0 {
		first = fixed[0] - 1
	}
	// Of two inserts at one position, the later goes above.
	head := len(own)
	if refusing := e.refusing(theirs); len(refusing) > 0 {
		head--
		e.inserts = append(e.inserts, insert{"", own[head:], slices.Max(refusing)})
	}
	e.inserts = append(e.inserts, insert{"", own[:head], first})
}

// besideInterleaved reports whether jumps to the chains beside libvirt's, which are
// in order, are where interleave has them.
func (e edit) besideInterleaved(positions []int, theirs []Rule) bool {
	fixed, refusing := e.positionsOf(theirs), e.refusing(theirs)
	if len(fixed) == 0 {
		return true
	}
	head, out := positions, positions[len(positions)-1]
	if len(refusing) > 0 {
		head = positions[:len(positions)-1]
		last := e.positionsOf(theirs[len(theirs)-1:])
		late := slices.Max(refusing)
		if out < late || len(last) > 0 && last[0] > late && out > last[0] {
			return false
		}
	}
	return head[len(head)-1] < fixed[0]
}

// refusing returns the positions of the jumps to those of libvirt's chains that
// come before traffic from guests is accepted.
func (e edit) refusing(theirs []Rule) []int {
	return e.positionsOf(theirs[:len(theirs)-1])
}

// removeJumps deletes the jumps to chains that are deleted.
func (e *edit) removeJumps(libvirts, beside bool) {
	for _, x := range []struct{ gone, beside bool }{{libvirts, false}, {beside, true}} {
		if x.gone {
			e.stale = append(e.stale, e.positionsOf(jumpsOf(e.chain, x.beside))...)
		}
	}
}

func (e edit) positionsOf(rules []Rule) []int {
	var positions []int
	for at, l := range e.lines {
		if l.known && slices.Contains(rules, l.rule) {
			positions = append(positions, at)
		}
	}
	return positions
}

// after returns the listing in which chains that lose all their rules are empty.
func (l listing) after(edits map[Chain]*edit) listing {
	after := listing{chains: make(map[Chain][]line, len(l.chains))}
	for c, lines := range l.chains {
		after.chains[c] = lines
		if e := edits[c]; e != nil && len(e.stale) == len(lines) {
			after.chains[c] = nil
		}
	}
	return after
}
