package service

import (
	"net/netip"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// managed is one network and how far it is in force. Values are replaced, not
// changed, so that a failed change can put the old one back.
type managed struct {
	net        network.Network
	subnets    []netip.Prefix // of net, kept for comparisons
	devices    []string       // forward devices by their links' own names
	persistent bool
	backend    string // the one that holds its rules

	bridge   bridge
	hasRules bool // open networks have none

	zone binding.State
	// noted are the findings that are not derived from the fields above, by who
	// found them.
	noted map[source][]finding.Finding
}

// compiled returns the network with what follows from its settings.
func (m managed) compiled() *managed {
	m.hasRules = m.net.Mode != network.ModeOpen
	return &m
}

// Name, Bridge, Iface and Index are what the registry knows of a network.
func (m *managed) Name() string   { return m.net.Name }
func (m *managed) Bridge() string { return m.net.Bridge }
func (m *managed) Iface() string  { return m.iface() }
func (m *managed) Index() int     { return m.bridge.index }

// status is the network as clients see it.
func (m *managed) status() Status {
	st := Status{
		Network: m.net, Persistent: m.persistent, Backend: m.backend,
		BridgeIndex: m.bridge.index, Interface: m.iface(), BoundZone: m.zone.Bound,
	}
	st.Findings = m.findings()
	st.State, st.StateCode, st.StateReason = stateOf(st.Findings)
	return st
}

// allows asks an Expect about the network as it is now; m is nil for none.
func (e Expect) allows(m *managed) error {
	if e == nil {
		return nil
	}
	if m == nil {
		return e(nil)
	}
	st := m.status()
	return e(&st)
}

// stateOf returns what findings make of a network's State, and why.
func stateOf(fs []finding.Finding) (State, finding.ID, string) {
	worst, ok := finding.Worst(fs)
	if !ok {
		return StateActive, "", ""
	}
	states := map[finding.Effect]State{finding.Waiting: StateWaiting, finding.Degraded: StateDegraded, finding.Failed: StateFailed}
	return states[worst.Effect()], worst.ID, worst.Reason()
}

// findings returns everything that is found of the network, what says most of
// its State first.
func (m *managed) findings() []finding.Finding {
	fs := m.bridgeFindings()
	if m.zone.Problem.ID != "" {
		fs = append(fs, m.zone.Problem)
	}
	for _, noted := range m.noted {
		fs = append(fs, noted...)
	}
	finding.Sort(fs)
	return fs
}

// forwards says which families the network needs the host to forward.
func (m *managed) forwards() (v4, v6 bool) {
	if m.net.Mode == network.ModeIsolated {
		return false, false
	}
	for _, p := range contested(m.net) { // what is of one link is not forwarded
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	return v4, v6
}

// servesDHCPv4 reports whether DHCP replies leave by the bridge.
func (m *managed) servesDHCPv4() bool {
	if !m.net.DHCP || m.net.Mode == network.ModeOpen {
		return false
	}
	for _, p := range m.net.Addresses {
		if p.Addr().Is4() {
			return true
		}
	}
	return false
}

// translated are the subnets whose traffic to the outside gets another source.
func (m *managed) translated() []netip.Prefix {
	if m.net.Mode != network.ModeNAT || !m.hasRules {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.subnets), func(p netip.Prefix) bool { return p.Addr().Is6() && !m.net.NATIPv6 })
}

// translates reports whether the network has NAT.
func (m *managed) translates() bool { return len(m.translated()) > 0 }
