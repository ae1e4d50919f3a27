package analysis

import (
	"cmp"
	"slices"
)

// Verdict is what becomes of packets.
type Verdict int

// The verdicts. Unsure is where the rules alone do not tell.
const (
	Passes Verdict = iota
	Unsure
	Rejected
	Dropped
)

// Answer is what becomes of a packet, and why.
type Answer struct {
	Verdict Verdict
	At      // what stops it, or may do so
}

// At is a rule of a chain, which packets come to from a base chain. An empty Rule is
// the policy.
type At struct {
	Command, Table, Base, Chain, Rule string
	Hook                              Hook
}

// limits of what one decision follows; a ruleset that needs more is left undecided.
const (
	maxDepth = 64
	maxSteps = 200_000
)

// Decide returns what becomes of a packet on its way through tables. The first base
// chain that certainly stops it decides.
func Decide(tables []Table, p Packet) Answer {
	unsure := Answer{}
	for _, at := range way(tables, p) {
		w := &walk{table: at.table, base: at.base, packet: p}
		a := w.enter()
		p = w.packet
		switch a.Verdict {
		case Dropped, Rejected:
			return a
		case Unsure:
			if unsure.Verdict == Passes {
				unsure = a
			}
		}
	}
	return unsure
}

type stop struct {
	table Table
	base  Base
}

// way returns the base chains that a packet meets, in their order.
func way(tables []Table, p Packet) (stops []stop) {
	hooks := map[Hook][]Hook{Forward: {Prerouting, Forward, Postrouting}, Input: {Prerouting, Input}, Output: {Output, Postrouting}}[p.Way]
	for _, t := range tables {
		for _, b := range t.Bases {
			if t.IPv6 == p.IPv6 && slices.Contains(hooks, b.Hook) {
				stops = append(stops, stop{t, b})
			}
		}
	}
	slices.SortStableFunc(stops, func(a, b stop) int {
		return cmp.Or(slices.Index(hooks, a.base.Hook)-slices.Index(hooks, b.base.Hook), a.base.Priority-b.base.Priority)
	})
	return stops
}

// walk follows a packet through one base chain.
type walk struct {
	table  Table
	base   Base
	packet Packet
	steps  int

	mayPass bool    // something may have accepted it before it was stopped
	mayStop *Answer // what may have stopped it before it was accepted
}

// outcome is how a chain ends: with a verdict, or for its caller to go on.
type outcome struct {
	ended bool
	Answer
}

func (w *walk) at(chain, rule string) At {
	return At{Command: w.table.Command, Table: w.table.Name, Base: w.base.Chain, Chain: chain, Rule: rule, Hook: w.base.Hook}
}

func (w *walk) enter() Answer {
	end := w.chain(w.base.Chain, 0, true)
	if !end.ended {
		end.Answer = Answer{At: w.at(w.base.Chain, "")}
		if w.base.Drops {
			end.Verdict = Dropped
		}
	}
	switch {
	case end.Verdict == Passes && w.mayStop != nil:
		end.Answer = *w.mayStop
		end.Verdict = Unsure
	case end.Verdict != Passes && w.mayPass:
		end.Verdict = Unsure
	case end.Verdict == Passes:
		return Answer{}
	}
	return end.Answer
}

// chain follows the rules of a chain; sure is whether the packet certainly is in it.
// Once a rule may have returned from it, all that follows may not happen.
func (w *walk) chain(name string, depth int, sure bool) outcome {
	for _, r := range w.table.Chains[name] {
		if w.steps++; w.steps > maxSteps || depth > maxDepth {
			return outcome{true, Answer{Unsure, w.at(name, r.Text)}}
		}
		hit := r.matches(w.packet)
		if hit == no {
			continue
		}
		if r.Action == Return {
			if hit == yes {
				return outcome{}
			}
			sure = false
			continue
		}
		end := w.rule(r, name, depth, hit == yes && sure)
		if !end.ended && r.Action != Goto {
			continue
		}
		if !end.ended {
			if hit == yes {
				return outcome{} // a goto comes back to the caller of this chain
			}
			sure = false
			continue
		}
		if hit == yes && sure {
			return end
		}
		w.may(end.Answer)
		if hit == yes {
			return outcome{} // it ended here, or had returned before
		}
	}
	return outcome{}
}

// may notes how the packet may have ended.
func (w *walk) may(a Answer) {
	if a.Verdict == Passes {
		w.mayPass = true
	} else if w.mayStop == nil {
		w.mayStop = &a
	}
}

// rule is what a rule does that matches, or may do so.
func (w *walk) rule(r Rule, chain string, depth int, sure bool) outcome {
	at := w.at(chain, r.Text)
	switch r.Action {
	case Accept:
		return outcome{true, Answer{Passes, at}}
	case Drop:
		return outcome{true, Answer{Dropped, at}}
	case Reject:
		return outcome{true, Answer{Rejected, at}}
	case Queue:
		return outcome{true, Answer{Unsure, at}}
	case Mark:
		w.setMark(r.SetMark, sure)
	case Jump, Goto:
		return w.chain(r.Chain, depth+1, sure)
	}
	return outcome{}
}

// setMark gives the packet another mark, as MARK --set-xmark does.
func (w *walk) setMark(to *MarkIs, sure bool) {
	if to == nil || !sure {
		w.packet.markUnknown = true
		return
	}
	w.packet.mark = w.packet.mark&^to.Mask ^ to.Value
}
