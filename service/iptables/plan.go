package iptables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// entry is one network as it is to be in the kernel.
type entry struct {
	network string
	rules   []Rule
	theirs  []Rule // what libvirt makes for it, where libvirt has it too
}

// goal is what the kernel is to hold.
type goal struct {
	entries []entry         // in the order in which they were started
	wanted  map[Rule]int    // the entry of each rule that is to be there
	ours    map[Rule]string // the network of each rule that may be there because of us
	theirs  map[Rule]bool   // what libvirt makes for networks that it has
	keep    bool            // libvirt may need its chains, and may just be adding or deleting rules
	totals  func(network string, seen ruleset.Counters) ruleset.Counters
	anew    string // a network whose counters begin anew
}

// newGoal is a goal; recorded is what was put in earlier.
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

// needs reports which chains networks have rules in: libvirt's, and those beside
// them.
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
	start   map[Rule]count // counters of rules that are put in
	base    map[string]ruleset.Counters
	damaged map[string]bool
}

// edit is what happens to one chain.
type edit struct {
	chain   Chain
	lines   []line
	stale   []int // rules of ours that nobody wants any more, by place
	drop    []int // rules that are put in again at another place
	inserts []insert
	blind   bool // lines are not all: what is put in goes to the head
}

// insert is a network's rules, or the jumps (for no network).
type insert struct {
	network string
	rules   []Rule
	after   int // place in lines behind which they go, -1 for the head
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
	p.compare(edits, g)
	p.carry(edits, g)
	after := l.after(edits)
	dropLibvirts := !libvirts && !g.keep && !after.used(false)
	dropBeside := !beside && !after.used(true)
	for _, parent := range parents() {
		e := edit{chain: parent, lines: l.chains[parent]}
		e.hang(libvirts, beside)
		e.unhang(dropLibvirts, dropBeside)
		if len(e.inserts) > 0 {
			theirs := jumpsOf(parent, false)
			p.damage(g, !e.inOrder(e.placesOf(theirs), theirs))
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

// damage notes the networks whose jumps were not as they should be: those beside
// libvirt's, and, if libvirt's jumps were not either, all.
func (p *plan) damage(g goal, all bool) {
	for _, n := range g.entries {
		if all || n.theirs != nil {
			p.damaged[n.network] = true
		}
	}
}

func (e edit) empty() bool { return len(e.stale) == 0 && len(e.drop) == 0 && len(e.inserts) == 0 }

// compare finds, chain by chain, what is missing, misplaced, there twice or
// no longer wanted.
func (p *plan) compare(edits map[Chain]*edit, g goal) {
	places := make(map[Chain]map[int][]int, len(edits))
	before := make(map[Chain]map[string]int, len(edits)) // where rules are that go
	for c, e := range edits {
		places[c], before[c] = make(map[int][]int), make(map[string]int)
		for at, l := range e.lines {
			if i, wanted := g.wanted[l.rule]; l.known && wanted {
				places[c][i] = append(places[c][i], at)
			} else if network, ours := g.owner(l); ours {
				if g.theirs[l.rule] && !e.copied(at) {
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
			e, at := edits[c], places[c][i]
			inOrder := e.inOrder(at, rules) || g.keep && e.hasInOrder(at, rules)
			if inOrder && (n.network != g.anew || !counted(c)) {
				continue
			}
			after := g.place(i, places[c])
			if old, is := before[c][n.network]; is {
				after = old
			}
			e.insert(n.network, rules, at, after)
			p.damaged[n.network] = true
		}
	}
}

// place is where a network's rules go if none of them is there: libvirt has
// networks that were started later above earlier ones, and puts a new one at
// the head.
func (g goal) place(i int, places map[int][]int) (after int) {
	later := -1
	for j := i + 1; j < len(g.entries) && len(places) > 0 && later < 0; j++ {
		if at := places[j]; len(at) > 0 {
			later = slices.Max(at)
		}
	}
	if later < 0 {
		return -1
	}
	for j := i - 1; j >= 0; j-- {
		if at := places[j]; len(at) > 0 {
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

// inOrder reports whether the lines at some places are exactly these rules. What
// is between them is others'.
func (e edit) inOrder(places []int, rules []Rule) bool {
	return slices.EqualFunc(places, rules, func(at int, r Rule) bool { return e.lines[at].rule == r })
}

// hasInOrder reports whether rules are among the lines at some places in their
// order: a libvirt that starts a network puts its own, which say the same, above
// them before it says that it has the network.
func (e edit) hasInOrder(places []int, rules []Rule) bool {
	for _, at := range places {
		if len(rules) > 0 && e.lines[at].rule == rules[0] {
			rules = rules[1:]
		}
	}
	return len(rules) == 0
}

// copied reports whether the rule of a line stands below it once more.
func (e edit) copied(at int) bool {
	return slices.ContainsFunc(e.lines[at+1:], func(l line) bool { return l.known && l.rule == e.lines[at].rule })
}

// insert puts rules where the first of them was, so that what others have put
// above them stays above; where there was none, behind a given place.
func (e *edit) insert(network string, rules []Rule, places []int, after int) {
	if len(places) > 0 {
		after = places[0]
	}
	e.drop = append(e.drop, places...)
	e.inserts = append(e.inserts, insert{network, rules, after})
}

// hang makes sure of the jumps from a parent to the chains that are needed.
// Where all of libvirt's networks are libvirt's, its jumps stay where they are.
func (e *edit) hang(libvirts, beside bool) {
	theirs, own := jumpsOf(e.chain, false), jumpsOf(e.chain, true)
	switch {
	case libvirts && beside:
		e.hangAll(inTurn(own, theirs))
	case libvirts:
		e.hangAll(theirs)
	case beside:
		e.hangBeside(own, theirs)
	}
}

func (e *edit) hangAll(jumps []Rule) {
	if places := e.placesOf(jumps); !e.inOrder(places, jumps) {
		e.insert("", jumps, places, -1)
	}
}

// hangBeside puts jumps in their turn among libvirt's, which stay.
func (e *edit) hangBeside(own, theirs []Rule) {
	places, fixed := e.placesOf(own), e.placesOf(theirs)
	if e.inOrder(places, own) && e.besideInTurn(places, theirs) {
		return
	}
	e.drop = append(e.drop, places...)
	first := -1
	if len(fixed) > 0 {
		first = fixed[0] - 1
	}
	// Of what goes to one place, the later comes above.
	head := len(own)
	if refusing := e.refusing(theirs); len(refusing) > 0 {
		head--
		e.inserts = append(e.inserts, insert{"", own[head:], slices.Max(refusing)})
	}
	e.inserts = append(e.inserts, insert{"", own[:head], first})
}

// besideInTurn reports whether jumps to the chains beside libvirt's, which are in
// order, are where inTurn has them.
func (e edit) besideInTurn(places []int, theirs []Rule) bool {
	fixed, refusing := e.placesOf(theirs), e.refusing(theirs)
	if len(fixed) == 0 {
		return true
	}
	head, out := places, places[len(places)-1]
	if len(refusing) > 0 {
		head = places[:len(places)-1]
		last := e.placesOf(theirs[len(theirs)-1:])
		late := slices.Max(refusing)
		if out < late || len(last) > 0 && last[0] > late && out > last[0] {
			return false
		}
	}
	return head[len(head)-1] < fixed[0]
}

// refusing are the places of the jumps to those of libvirt's chains that come
// before what leaves guests is let out.
func (e edit) refusing(theirs []Rule) []int {
	return e.placesOf(theirs[:len(theirs)-1])
}

// unhang takes out the jumps to chains that go.
func (e *edit) unhang(libvirts, beside bool) {
	for _, x := range []struct{ gone, beside bool }{{libvirts, false}, {beside, true}} {
		if x.gone {
			e.stale = append(e.stale, e.placesOf(jumpsOf(e.chain, x.beside))...)
		}
	}
}

func (e edit) placesOf(rules []Rule) []int {
	var places []int
	for at, l := range e.lines {
		if l.known && slices.Contains(rules, l.rule) {
			places = append(places, at)
		}
	}
	return places
}

// after is what the kernel holds, but for the rules that go.
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
