package service

import (
	"context"
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// bridge is what the host has of a network's bridge. A network keeps to its
// link, which is known by its index, whatever the link is called; while it has
// none its bridge's name counts.
type bridge struct {
	index int    // of the link; 0 while there is none
	name  string // the link's own name now
	// reserved reports that another network is configured for name, so that
	// what comes under it later is that network's.
	reserved bool
	// lost reports that the link has another name than the network says, and
	// that something else has the name that the network says.
	lost bool
	// stray says why what has the name that the network says is not its bridge;
	// "" where nothing has it, or the network has its link.
	stray  finding.ID
	uplink bool // the host has a default route through the link
}

// renamed reports whether the network's bridge has another name than configured.
func (m *managed) renamed() bool { return m.bridge.index != 0 && m.bridge.name != m.net.Bridge }

// iface is the name of the network's bridge as it is now.
func (m *managed) iface() string {
	if m.bridge.index != 0 {
		return m.bridge.name
	}
	return m.net.Bridge
}

// present reports whether the network's bridge exists.
func (m *managed) present() bool { return m.bridge.index != 0 }

// member is the network as a backend needs it.
func (m *managed) member() backend.Member {
	b := backend.Member{Network: m.net, Index: m.bridge.index, Iface: m.iface(), Names: []string{m.net.Bridge}}
	if len(m.devices) > 0 {
		b.Network.Devices = m.devices
	}
	switch {
	case m.bridge.stray == finding.BridgeTaken:
		b.Iface = "" // there is no link for it to be written for
	case m.renamed():
		b.Names = b.Names[:0]
		if !m.bridge.lost {
			b.Names = append(b.Names, m.net.Bridge)
		}
		if !m.bridge.reserved {
			b.Names = append(b.Names, m.bridge.name)
		}
	}
	return b
}

// bridgeFindings are those of the network's bridge.
func (m *managed) bridgeFindings() (fs []finding.Finding) {
	add := func(id finding.ID, summary, remedy string) {
		fs = append(fs, finding.Finding{ID: id, Network: m.net.Name, Summary: summary, Remedy: remedy})
	}
	name := m.net.Bridge
	switch {
	case m.bridge.stray == finding.NotABridge:
		add(finding.NotABridge, name+" exists and is not a bridge, so the network has none; its rules hold for that name",
			"remove or rename that interface, or update the network's bridge")
	case m.bridge.stray == finding.BridgeTaken:
		add(finding.BridgeTaken, fmt.Sprintf("%s is the bridge of another network, so this one has none", name),
			"`virtfirewallctl list` shows which; update one network's bridge, or rename the link")
	case m.bridge.index == 0:
		add(finding.BridgeMissing, fmt.Sprintf("bridge %s does not exist yet: its rules hold by name and it becomes active as soon as it appears", name), "")
	case m.renamed():
		add(finding.BridgeRenamed, fmt.Sprintf("bridge %s is now called %s, and its rules follow it", name, m.bridge.name),
			"rename it back, or update the network's bridge")
	}
	if m.bridge.uplink {
		add(finding.BridgeUplink, fmt.Sprintf("the host has a default route through bridge %s, whose rules stay in force", m.iface()),
			"if no guest is meant to be the host's router, look at `ip route` and `ip -6 route`, and delete that route")
	}
	return fs
}

// hostView is what networks look up of the host, and what it refuses them.
type hostView struct {
	hostLinks Links
	networks  *networks
	log       logger
	workers   *workers
}

// look finds a network's bridge: the link of index known, if that is a bridge
// still, else what has the bridge's name and is not taken by another network.
func (v *hostView) look(name string, known int, taken func(index int) bool) (bridge, error) {
	named, found, err := v.hostLinks.Query(name)
	if err != nil {
		return bridge{}, errorf(ApplyFailed, "looking at bridge %s: %w", name, err)
	}
	if known != 0 && (!found || named.Index != known) {
		own, alive, err := v.hostLinks.QueryIndex(known)
		if err != nil {
			return bridge{}, errorf(ApplyFailed, "looking at bridge %s: %w", name, err)
		}
		if alive && own.Bridge {
			return v.linked(name, own, found), nil
		}
	}
	switch {
	case !found:
		return bridge{}, nil
	case !named.Bridge:
		return bridge{stray: finding.NotABridge}, nil
	}
	if taken(named.Index) {
		return bridge{stray: finding.BridgeTaken}, nil
	}
	return v.linked(name, named, false), nil
}

// takenFrom reports of a link whether another network than the named one has it.
func (v *hostView) takenFrom(network string) func(index int) bool {
	return func(index int) bool {
		return slices.ContainsFunc(v.networks.ByIndex(index), func(m *managed) bool { return m.net.Name != network })
	}
}

// byNobody is for links that are compared later.
func byNobody(int) bool { return false }

// linked is a bridge that has its link; lost says that something else has the
// name that the network says.
func (v *hostView) linked(name string, l watch.Link, lost bool) bridge {
	_, configured := v.networks.ConfiguredFor(l.Name)
	return bridge{index: l.Index, name: l.Name, lost: lost, reserved: configured && l.Name != name, uplink: v.isUplink(l.Index)}
}

// isUplink reports whether a default route of the host leaves by the link.
func (v *hostView) isUplink(index int) bool {
	for _, r := range v.hostLinks.DefaultRoutes() {
		if r.Index == index {
			return true
		}
	}
	return false
}

// leadsOutside reports whether a link carries the host's own default route:
// not one that a router advertisement made, nor one to a router among guests,
// behind a bridge whose ports are all taps.
func (v *hostView) leadsOutside(index int) bool {
	for _, r := range v.hostLinks.DefaultRoutes() {
		if r.Index == index && !r.FromRA && !v.guestsOnly(index) {
			return true
		}
	}
	return false
}

// guestsOnly reports whether a bridge has ports and all of them are taps.
func (v *hostView) guestsOnly(index int) bool {
	ports := 0
	for _, l := range v.hostLinks.Links() {
		if l.Master != index {
			continue
		}
		if !l.Tap {
			return false
		}
		ports++
	}
	return ports > 0
}

// refusal says why a new network may not have the link that has its bridge's
// name; nil where it may, or there is none.
func (v *hostView) refusal(name string, b bridge) error {
	switch {
	case b.stray == finding.NotABridge:
		return errorf(InvalidArgument, "%s exists and is not a bridge: only Linux bridges can be networks; name another bridge or remove the interface", name)
	case b.uplink && v.leadsOutside(b.index):
		return errorf(InvalidArgument, "%s carries the host's default route: rules for guests would cut the host off; use a bridge of the guests' own", name)
	}
	return nil
}

// rememberLinks writes down which links networks have, before rules go by it:
// a bridge that is renamed while the service is down is known again by its
// index.
func (tx *transactions) rememberLinks(ts []transition) {
	for _, t := range ts {
		var old, next store.Link
		if t.old != nil {
			old = t.old.link()
		}
		if t.next != nil {
			next = t.next.link()
		}
		if old == next {
			continue
		}
		if err := tx.files.SaveLink(t.name(), next); err != nil {
			tx.log.Warn("a bridge that is renamed while the service is down may not be known again", "network", t.name(), "error", err)
		}
	}
}

// refreshUplinks looks which networks' bridges have a default route by now.
func (lf *linkFollower) refreshUplinks(context.Context) {
	for _, m := range lf.networks.All() {
		lf.networks.edit(m.net.Name, func(m *managed) *managed {
			next := *m
			if next.bridge.uplink = m.bridge.index != 0 && lf.view.isUplink(m.bridge.index); next.bridge == m.bridge {
				return m
			}
			return &next
		})
	}
}

// rememberAll writes down the links that networks have at a start.
func (tx *transactions) rememberAll() {
	kept := tx.files.Links()
	for _, m := range tx.networks.All() {
		tx.rememberLinks([]transition{{old: linked(m.net.Name, kept[m.net.Name]), next: m}})
		delete(kept, m.net.Name)
	}
	for name, link := range kept {
		tx.rememberLinks([]transition{{old: linked(name, link)}})
	}
}

// linked is what was known of a network at the last end of the service.
func linked(name string, link store.Link) *managed {
	return &managed{net: network.Network{Name: name, Bridge: link.Bridge}, bridge: bridge{index: link.Index}}
}

// link is what is kept of the network's bridge over a restart.
func (m *managed) link() store.Link {
	if m.bridge.index == 0 {
		return store.Link{}
	}
	return store.Link{Bridge: m.net.Bridge, Index: m.bridge.index}
}

// zoneAfter is the state in firewalld's zones of a network whose bridge was
// looked at again: firewalld knows interfaces by name.
func (m *managed) zoneAfter(old *managed) binding.State {
	zone := m.zone
	if m.iface() != old.iface() && zoned(m) {
		zone = zone.Unmoved() // what another program chose was of the old name
		zone.Bound, zone.Retry = "", true
	}
	return zone
}

// leaveOldNames takes names that bridges no longer have out of their zones: the
// zones accept what only a network's rules keep apart.
func (tx *transactions) leaveOldNames(ts []transition) {
	for _, t := range ts {
		if t.old == nil || t.next == nil || t.old.net.Bridge != t.next.net.Bridge || t.old.iface() == t.next.iface() {
			continue
		}
		if _, held := tx.networks.HolderOf(t.old.iface()); !held && t.old.zone.Bound != "" {
			tx.binder.Postpone(t.old.iface(), "")
		}
		tx.binder.Retry()
	}
}

// lookAgain looks at bridges whose names depend on other networks, after some of
// those have changed.
func (tx *transactions) lookAgain(ctx context.Context, changed []transition) {
	if !slices.ContainsFunc(changed, transition.movesLink) {
		return
	}
	var ts []transition
	for _, m := range tx.networks.All() {
		if m.bridge.stray != finding.BridgeTaken && !m.renamed() {
			continue
		}
		if t, other := tx.relinked(m.net.Name); other {
			ts = append(ts, t)
		}
	}
	tx.applyLinks(ctx, ts, "link")
}

// movesLink reports whether another link is the network's, or another name.
func (t transition) movesLink() bool {
	if t.old == nil || t.next == nil {
		return true
	}
	return t.old.net.Bridge != t.next.net.Bridge || t.old.bridge.index != t.next.bridge.index
}
