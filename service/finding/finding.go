// Package finding defines what the service reports about a host and its networks:
// the kinds of finding, each with a severity and its effect on a network's State,
// and the findings themselves. It has only values and does no I/O.
package finding

import (
	"cmp"
	"slices"
	"strings"
)

// ID identifies a kind of finding. It is StateCode on the bus, so programs depend on
// it; a published one keeps its meaning.
type ID string

// Severity is how much a finding matters.
type Severity string

// The severities of the contract.
const (
	Info    Severity = "info"    // worth knowing; nothing is to be done
	Warning Severity = "warning" // something is missing, or soon may be
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
	// Summary is what was found, without a full stop.
	Summary string
	// Evidence is detail for an administrator: only Diagnose shows it, since it may
	// quote other programs' rules.
	Evidence string
	// Remedy is what to do, with a command if there is one.
	Remedy string
}

// Quoted returns a name for a Remedy, as one word of a shell.
func Quoted(name string) string {
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == "" {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
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

// kind returns the finding's row. A finding without one is a bug, which must not look
// harmless.
func (f Finding) kind() Kind {
	for _, k := range Kinds() {
		if k.ID == f.ID {
			return k
		}
	}
	return Kind{ID: f.ID, Severity: Error, Effect: Failed}
}

// Sort orders findings by how much they do to a State, then by severity, then
// by network and ID. With hundreds of networks there may be hundreds of findings of
// one kind, so each kind is looked up once.
func Sort(fs []Finding) {
	kinds := map[ID]Kind{}
	for _, f := range fs {
		if _, known := kinds[f.ID]; !known {
			kinds[f.ID] = f.kind()
		}
	}
	slices.SortStableFunc(fs, func(a, b Finding) int {
		if a.ID == b.ID {
			return cmp.Compare(a.Network, b.Network)
		}
		x, y := kinds[a.ID], kinds[b.ID]
		return cmp.Or(rank(effects, y.Effect)-rank(effects, x.Effect), rank(severities, y.Severity)-rank(severities, x.Severity),
			cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID))
	})
}

// Worst returns the finding with the greatest effect on a State; ok is false if none
// has one.
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
