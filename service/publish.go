package service

import (
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// networks are the networks and the host as they are known. Whatever changes in
// them is reported: clients receive events, the journal its lines, and zone records
// are kept in line. Writers hold the change lock.
type networks struct {
	*registry.Registry[*managed, hostState]
	notify  func(Event)
	binder  *binding.Binder
	leaving *leaving
	log     logger

	states   stateLog
	flapping signal // changes of State have no line in the log yet
}

// known returns the network of that name or the error that there is none.
func (ns *networks) known(name string) (*managed, error) {
	if m, ok := ns.Get(name); ok {
		return m, nil
	}
	return nil, errorf(NetworkNotFound, "there is no network %q: `virtfirewallctl list` shows those there are", name)
}

// publish makes transitions visible and reports them, but for networks whose
// change is not certain yet.
func (ns *networks) publish(ts []transition) {
	changes := make([]registry.Change[*managed], len(ts))
	for i, t := range ts {
		changes[i] = t.change()
		ns.leaving.put(t)
	}
	ns.Put(changes, func(certain []registry.Change[*managed]) {
		for _, t := range ts {
			ns.binder.Record(t.zoning())
		}
		ns.leaving.forget(ts)
		ns.announce(certain)
	})
}

// edit changes one network by a function from value to value, and reports it.
// Nothing is done where there is none of that name, or the function returns what
// it was given.
func (ns *networks) edit(name string, f func(m *managed) *managed) {
	var t transition
	ns.Edit(name, func(m *managed) *managed {
		t = transition{old: m, next: f(m)}
		return t.next
	}, func(certain []registry.Change[*managed]) {
		ns.binder.Record(t.zoning())
		ns.announce(certain)
	})
}

// announce logs changes of State and sends clients their events.
func (ns *networks) announce(changes []registry.Change[*managed]) {
	findings := false
	ns.reportStates(changes)
	for _, c := range changes {
		t := transition{old: c.Old, next: c.Next}
		if e := eventOf(t); e != nil {
			ns.notify(e)
		}
		findings = findings || t.findsOtherwise()
	}
	if findings {
		ns.notify(FindingsChanged{})
	}
}

// changeHost changes the properties of the service and reports it.
func (ns *networks) changeHost(f func(*Host)) {
	ns.EditHost(func(h hostState) hostState {
		f(&h.Host)
		return h
	}, func(old, next hostState) {
		if !equalHost(old.Host, next.Host) {
			ns.notify(HostChanged{Old: old.Host, New: next.Host})
		}
	})
}

func equalHost(a, b Host) bool {
	return a.Version == b.Version && a.Backend == b.Backend && a.ConfiguredBackend == b.ConfiguredBackend &&
		a.BackendSource == b.BackendSource && slices.Equal(a.AvailableBackends, b.AvailableBackends) &&
		a.FirewalldRunning == b.FirewalldRunning && a.FirewalldBackend == b.FirewalldBackend &&
		slices.Equal(a.InstalledZones, b.InstalledZones)
}

// governed leaves out the rules of what is no network any more.
func (ns *networks) governed(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, err := ns.known(name); return err != nil })
}

// statuses returns all networks as clients see them, by name.
func (ns *networks) statuses() []Status {
	all := ns.All()
	out := make([]Status, len(all))
	for i, m := range all {
		out[i] = m.status()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Network.Name, b.Network.Name) })
	return out
}
