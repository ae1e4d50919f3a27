package nftables

import (
	"net/netip"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// changesOfAKind is how often a network becomes the other and back.
const changesOfAKind = 500

// TestNoInstantOfAChangeOpensAnything changes a network to and fro, 1,000 times for
// each kind of change, while its guest opens flows and strangers try to reach it. A
// packet may meet the rules of before or those of after: what neither allows must not
// pass, and what both allow must.
func TestNoInstantOfAChangeOpensAnything(t *testing.T) {
	isolated := func(n *network.Network) { n.Mode = network.ModeIsolated }
	kinds := map[string]struct {
		change func(*network.Network)
		index  bool // and its bridge's index is known
		lossy  bool // the other lets guests out as well
	}{
		"isolated":           {change: isolated, lossy: true},
		"isolated by index":  {change: isolated, index: true, lossy: true},
		"known by index":     {change: func(*network.Network) {}, index: true},
		"its own chains":     {change: func(n *network.Network) { n.Devices = []string{"wan0"} }},
		"its own ports":      {change: func(n *network.Network) { n.NATPorts = network.PortRange{First: 2000, Last: 60000} }},
		"another subnet too": {change: func(n *network.Network) { n.Routes = []netip.Prefix{prefix("10.9.0.0/24")} }},
		"own chains, subnet": {change: func(n *network.Network) { n.Routes = []netip.Prefix{prefix("10.9.0.0/16")} }, index: true},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t)
			r.backend.config.Host = r.bystanders(t)
			index := r.index(t, "virbr0")
			first := r.compile(t, index)
			if kind.index {
				first = r.compile(t, 0)
			}
			kind.change(&r.network)
			second := r.compile(t, index)
			mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{first}})
			ends := r.flows(t)
			for range changesOfAKind {
				mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{second}})
				mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{first}})
			}
			ends(t, kind.lossy)
		})
	}
}

// flows has the guest open flows and strangers try to, until the function that it
// returns is called, which checks what arrived.
func (r *router) flows(t *testing.T) func(t *testing.T, lossy bool) {
	t.Helper()
	out := startFlows(t, r.guest, r.internet, "203.0.113.1:7000", 2000)
	in := startFlows(t, r.internet, r.guest, "192.168.122.2:7002", 2000)
	return func(t *testing.T, lossy bool) {
		report := out.Stop()
		translated := report.Addresses[netip.MustParseAddr("203.0.113.2")]
		if report.Received < 100 || translated != report.Received || report.Lost > 0 && !lossy {
			t.Errorf("%v, want all from 203.0.113.2, and none lost: %v", report, !lossy)
		}
		if report := in.Stop(); report.Sent+report.SendErrors < 100 || report.Received > 0 {
			t.Errorf("strangers reached the guest: %v", report)
		}
	}
}
