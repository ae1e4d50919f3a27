package service

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
	"github.com/virtfirewalld/virtfirewalld/systemd"
)

const (
	// flapWindow and flapLines bound what a network that changes its State all
	// the time writes: so many lines in a window, then one that counts the rest.
	flapWindow = time.Minute
	flapLines  = 10
	// togetherLines is how many networks that change alike at once have a line
	// each; more share one.
	togetherLines = 10
)

// stateLog is what was logged of changes of State.
type stateLog struct {
	mu     sync.Mutex
	open   bool                 // false until the start has summed up
	recent map[string]*flapping // by network
}

// flapping is one network's changes of State in a window.
type flapping struct {
	since         time.Time
	lines, unsaid int
}

// opens starts the lines for single changes.
func (l *stateLog) opens() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = true
}

// allows reports whether a change gets a line of its own now.
func (l *stateLog) allows(network string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.recent[network]
	if f == nil || (f.unsaid == 0 && now.Sub(f.since) >= flapWindow) {
		if l.recent == nil {
			l.recent = map[string]*flapping{}
		}
		f = &flapping{since: now}
		l.recent[network] = f
	}
	if f.lines < flapLines {
		f.lines++
		return true
	}
	f.unsaid++
	return false
}

// forget drops a network that is gone.
func (l *stateLog) forget(network string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.recent, network)
}

// due takes the networks whose window has ended, with how many of their changes
// were left out, and returns when the next one ends.
func (l *stateLog) due(now time.Time) (unsaid map[string]int, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	unsaid = map[string]int{}
	for network, f := range l.recent {
		switch end := f.since.Add(flapWindow); {
		case !now.Before(end):
			if f.unsaid > 0 {
				unsaid[network] = f.unsaid
			}
			delete(l.recent, network)
		case f.unsaid > 0 && (next.IsZero() || end.Before(next)):
			next = end
		}
	}
	return unsaid, next
}

// reportStates logs changes of State.
func (ns *networks) reportStates(changes []registry.Change[*managed]) {
	ns.states.mu.Lock()
	open := ns.states.open
	ns.states.mu.Unlock()
	if !open {
		return
	}
	var changed []Status
	for _, c := range changes {
		t := transition{old: c.Old, next: c.Next}
		switch {
		case !t.changedState():
		case ns.states.allows(t.name(), time.Now()):
			changed = append(changed, t.next.status())
		default:
			ns.flapping.trigger()
		}
	}
	ns.logStates(changed)
}

// sumUpStates logs, once at the start, which networks are not active.
func (ns *networks) sumUpStates() {
	ns.states.opens()
	ns.logStates(slices.DeleteFunc(ns.statuses(), func(st Status) bool { return st.State == StateActive }))
}

// logStates writes a line for each network, but one for many that are alike.
func (ns *networks) logStates(all []Status) {
	alike := map[stateKey][]Status{}
	for _, st := range all {
		alike[keyOf(st)] = append(alike[keyOf(st)], st)
	}
	for _, st := range all {
		switch same := alike[keyOf(st)]; {
		case len(same) <= togetherLines:
			ns.log.Log(context.Background(), st.level(), "a network is "+string(st.State), append(st.fields(), st.stateFields()...)...)
		case same[0].Network.Name == st.Network.Name:
			names := make([]string, len(same))
			for i, one := range same {
				names[i] = one.Network.Name
			}
			attrs := append([]any{"count", len(names)}, st.stateFields()...)
			ns.log.Log(context.Background(), st.level(), "networks are "+string(st.State), append(attrs, "networks", names)...)
		}
	}
}

type stateKey struct {
	state State
	code  finding.ID
}

func keyOf(st Status) stateKey { return stateKey{st.State, st.StateCode} }

func (st Status) fields() []any {
	return []any{"network", st.Network.Name, "bridge", st.Network.Bridge, "backend", st.Backend}
}

// stateFields are why a network is not active; none where it is.
func (st Status) stateFields() []any {
	attrs := []any{"state", string(st.State)}
	if st.StateCode == "" {
		return attrs
	}
	attrs = append(attrs, "state_code", string(st.StateCode), "reason", st.StateReason)
	switch st.State {
	case StateDegraded:
		attrs = append(attrs, systemd.MessageID(systemd.MessageNetworkDegraded))
	case StateFailed:
		attrs = append(attrs, systemd.MessageID(systemd.MessageNetworkFailed))
	}
	return attrs
}

// level is how much the State matters.
func (st Status) level() slog.Level {
	worst, ok := finding.Worst(st.Findings)
	if !ok {
		return slog.LevelInfo
	}
	switch worst.Severity() {
	case finding.Error:
		return slog.LevelError
	case finding.Warning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// sumUpFlapping logs what was left out until now, and returns when there is
// more to sum up; the zero time for never.
func (ns *networks) sumUpFlapping(now time.Time) time.Time {
	unsaid, next := ns.states.due(now)
	for name, n := range unsaid {
		if m, err := ns.known(name); err == nil {
			st := m.status()
			attrs := append(st.fields(), "changes", n)
			ns.log.Log(context.Background(), st.level(), "a network's state changed further times, and is "+string(st.State), append(attrs, st.stateFields()...)...)
		}
	}
	return next
}
