package main

import (
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
)

func TestStatusText(t *testing.T) {
	in := func(states ...service.State) (all []service.Status) {
		for _, s := range states {
			all = append(all, service.Status{State: s})
		}
		return all
	}
	off := finding.Finding{ID: finding.ForwardingOff, Network: "lab", Summary: "forwarding is off", Remedy: "reapply"}
	file := finding.Finding{ID: finding.FileNeverUsable, Summary: "x.xml is cut", Remedy: "mend it"}
	missing := finding.Finding{ID: finding.BridgeMissing, Network: "lab", Summary: "no bridge"}
	for _, test := range []struct {
		networks []service.Status
		found    []finding.Finding
		want     string
	}{
		{nil, nil, "0 networks, nftables"},
		{in("active"), nil, "1 network, nftables"},
		{in("active", "waiting", "waiting"), []finding.Finding{missing}, "3 networks, 2 waiting, nftables"},
		{in("active", "active", "degraded"), []finding.Finding{off}, "3 networks, 1 degraded, nftables; lab: forwarding is off: reapply"},
		{in("failed", "degraded"), []finding.Finding{missing, file}, "2 networks, 1 failed, 1 degraded, nftables; x.xml is cut: mend it"},
	} {
		if got := statusText(test.networks, test.found, "nftables"); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
