// Package analysis decides whether packets that a network is entitled to pass the rules
// of other programs, and which rule or policy stops them where they do not. It is
// pure: rules and packets come in as values, and an answer with its evidence goes out.
package analysis

// Table is one table of rules, as far as it filters.
type Table struct {
	Command string // that lists and changes it: "iptables-legacy"
	Name    string // "filter"
	IPv6    bool
	Bases   []Base
	Chains  map[string][]Rule
}

// Base is a chain that the kernel enters by itself.
type Base struct {
	Hook     Hook
	Priority int
	Chain    string
	Drops    bool // its policy
}

// Hook is a place on a packet's way.
type Hook int

// The hooks of packets that are forwarded, come to the host or leave it.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// Rule matches packets, and says what becomes of them.
type Rule struct {
	Matches []Match
	// Unknown is a part of the rule that is not understood, or that rules alone do not
	// tell (a rate limit): it may match or not.
	Unknown string
	Action  Action
	Chain   string // that a Jump or Goto goes to
	// SetMark is what a Mark does; nil where rules alone do not tell.
	SetMark *MarkIs
	Text    string // as the tool prints it
}

// Action is what a rule does.
type Action int

// The actions. Continue is whatever lets the next rule have the packet.
const (
	Continue Action = iota
	Accept
	Drop
	Reject
	Return
	Jump
	Goto
	Mark  // continue, with another mark
	Queue // a program decides
)

// Match is one test of a packet, or its opposite.
type Match struct {
	Not  bool
	Test Test
}

// Test is what a packet is tested for.
type Test interface {
	holds(p Packet) truth
}

// truth is the result of a test.
type truth int

const (
	no truth = iota
	maybe
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// matches is whether all of a rule's tests hold.
func (r Rule) matches(p Packet) truth {
	least := yes
	for _, m := range r.Matches {
		got := m.Test.holds(p)
		if m.Not {
			got = yes - got
		}
		least = min(least, got)
		if least == no {
			return no
		}
	}
	if r.Unknown != "" {
		return min(least, maybe)
	}
	return least
}
