// Package finding is what the service has to say of a host and its networks:
// the kinds of finding that there are, each with a severity and with what it
// does to a network's State, and the findings themselves. It is values only and
// looks at nothing.
package finding

import (
	"cmp"
	"slices"
)

// ID names a kind of finding. It is StateCode on the bus, so that programs go
// by it; what is published keeps its meaning.
type ID string

// Severity is how much a finding matters.
type Severity string

// The severities of the contract.
const (
	Info    Severity = "info"    // worth knowing; nothing is to be done
	Warning Severity = "warning" // somebody lacks something, or soon may
	Error   Severity = "error"   // a network is not in force, or is not what was asked for
)

// Effect is what a finding does to its network's State.
type Effect string

// The effects, the least first.
const (
	None     Effect = ""
	Waiting  Effect = "waiting"
	Degraded Effect = "degraded"
	Failed   Effect = "failed"
)

// Kind is one row of the registry.
type Kind struct {
	ID       ID
	Severity Severity
	Effect   Effect
	About    string // one sentence, for docs/findings.md
}

// Finding is one thing that was found.
type Finding struct {
	ID      ID
	Network string // "" for the host
	// Summary says what is so, without a full stop.
	Summary string
	// Evidence is detail for an administrator: Diagnose alone shows it, since it
	// may quote other programs' rules.
	Evidence string
	// Remedy says what to do, with a command where there is one.
	Remedy string
}

// Severity returns how much the finding matters.
func (f Finding) Severity() Severity { return f.kind().Severity }

// Effect returns what the finding does to its network's State.
func (f Finding) Effect() Effect { return f.kind().Effect }

// Reason returns the finding as anybody may read it.
func (f Finding) Reason() string {
	if f.Remedy == "" {
		return f.Summary
	}
	return f.Summary + ": " + f.Remedy
}

// kind returns the finding's row. One that has none is a mistake of the
// program, which must not look harmless.
func (f Finding) kind() Kind {
	for _, k := range Kinds() {
		if k.ID == f.ID {
			return k
		}
	}
	return Kind{ID: f.ID, Severity: Error, Effect: Failed}
}

// Sort orders findings by how much they do to a State, then by severity, then
// by network and ID.
func Sort(fs []Finding) {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		return cmp.Or(rank(effects, b.Effect())-rank(effects, a.Effect()), rank(severities, b.Severity())-rank(severities, a.Severity()),
			cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID))
	})
}

// Worst returns the finding that says most of a State; ok is false where none
// has an effect.
func Worst(fs []Finding) (worst Finding, ok bool) {
	for _, f := range fs {
		if f.Effect() != None && (!ok || rank(effects, f.Effect()) > rank(effects, worst.Effect())) {
			worst, ok = f, true
		}
	}
	return worst, ok
}

func rank[T comparable](order func() []T, v T) int { return slices.Index(order(), v) }

func effects() []Effect { return []Effect{None, Waiting, Degraded, Failed} }

func severities() []Severity { return []Severity{Info, Warning, Error} }
