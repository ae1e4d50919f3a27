package client

import (
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
)

func TestWhatFirewalldIsWaitedFor(t *testing.T) {
	in := Network{State: "active", BoundZone: "libvirt"}
	open := Network{State: "active", ForwardMode: "open"}
	queued := Network{State: "degraded", StateCode: string(finding.ZoneNotBound)}
	silent := Network{State: "degraded", StateCode: string(finding.FirewalldSilent)}
	for name, c := range map[string]struct {
		networks []Network
		want     string
	}{
		"nothing":    {[]Network{in, in, open}, ""},
		"a reload":   {[]Network{in, in, open, queued}, "firewalld, which moves bridges into their zones (2 of 3)"},
		"silence":    {[]Network{in, queued, silent}, "firewalld, which does not answer; see systemctl status firewalld"},
		"no network": {nil, ""},
	} {
		if got := firewalldsPart(c.networks); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
