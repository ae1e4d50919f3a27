package iptables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// entry is one network as it is to be in the kernel.
type entry struct {
	network string
	rules   []Rule
}

// goal is what the kernel is to hold.
type goal struct {
	entries []entry         // in the order in which they were started
	wanted  map[Rule]int    // the entry of each rule that is to be there
	ours    map[Rule]string // the network of each rule that may be there because of us
	totals  func(network string, seen ruleset.Counters) ruleset.Counters
	anew    string // a network whose counters begin anew
}

// newGoal is a goal; recorded is what was put in earlier.
func newGoal(entries []entry, recorded map[string][]Rule) goal {
	g := goal{entries: entries, wanted: make(map[Rule]int), ours: make(map[Rule]string)}
	for network, rules := range recorded {
		for _, r := range rules {
			g.ours[r] = network
		}
	}
	for i, n := range entries {
		for _, r := range n.rules {
			g.wanted[r], g.ours[r] = i, n.network
		}
	}
	return g
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
	edits := make(map[Chain]*edit)
	for _, c := range allChains() {
		e := &edit{chain: c, lines: l.chains[c]}
		edits[c] = e
		if len(g.entries) > 0 && !l.has(c) {
			p.create = append(p.create, c)
		}
	}
	p.compare(edits, g)
	p.carry(edits, g)
	if len(g.entries) > 0 {
		p.hang(l, g)
	} else {
		p.takeDown(l, edits)
	}
	for _, c := range allChains() {
		if e := edits[c]; !e.empty() {
			p.edits = append(p.edits, *e)
		}
	}
	return p
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
			if e.inOrder(at, rules) && (n.network != g.anew || !counted(c)) {
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

// inOrder says whether the lines at some places are exactly these rules. What
// is between them is others'.
func (e edit) inOrder(places []int, rules []Rule) bool {
	return slices.EqualFunc(places, rules, func(at int, r Rule) bool { return e.lines[at].rule == r })
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

// hang makes sure of the jumps. Those of one parent keep libvirt's order.
func (p *plan) hang(l listing, g goal) {
	parents := byChain(allJumps())
	for _, jump := range allJumps() {
		jumps, ok := parents[jump.Chain]
		if !ok {
			continue
		}
		delete(parents, jump.Chain)
		e := edit{chain: jump.Chain, lines: l.chains[jump.Chain]}
		if places := e.placesOf(jumps); !e.inOrder(places, jumps) {
			e.insert("", jumps, places, -1)
			p.edits = append(p.edits, e)
			for _, n := range g.entries {
				p.damaged[n.network] = true
			}
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

// takeDown removes chains and jumps once no rule is left, unless somebody else
// uses them.
func (p *plan) takeDown(l listing, edits map[Chain]*edit) {
	after := listing{chains: make(map[Chain][]line, len(l.chains))}
	for c, lines := range l.chains {
		after.chains[c] = lines
		if e := edits[c]; e != nil && len(e.stale) == len(lines) {
			after.chains[c] = nil
		}
	}
	if after.used() {
		return
	}
	for parent, jumps := range byChain(allJumps()) {
		e := edit{chain: parent, lines: l.chains[parent]}
		if e.stale = e.placesOf(jumps); len(e.stale) > 0 {
			p.edits = append(p.edits, e)
		}
	}
	for _, c := range allChains() {
		if l.has(c) {
			p.remove = append(p.remove, c)
		}
	}
}
