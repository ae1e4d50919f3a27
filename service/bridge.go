package service

import (
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
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
