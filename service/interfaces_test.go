package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

type knownHost struct {
	links  []watch.Link
	routes []watch.Route
}

func (h knownHost) Links() []watch.Link          { return h.links }
func (h knownHost) DefaultRoutes() []watch.Route { return h.routes }

func TestHostInterfaces(t *testing.T) {
	links := []watch.Link{
		{Index: 1, Name: "lo"},
		{Index: 2, Name: "eth0", Up: true},
		{Index: 3, Name: "eth1", Master: 4},
		{Index: 4, Name: "br0", Bridge: true},
		{Index: 5, Name: "vnet0", Tap: true, Master: 4},
		{Index: 6, Name: "wg0"},
	}
	got := HostInterfaces(knownHost{links, []watch.Route{{Index: 2}, {IPv6: true, Index: 6}}})
	want := ruleset.Host{Bystanders: []ruleset.Interface{{Index: 2, Name: "eth0"}, {Index: 6, Name: "wg0"}}, Uplink: 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("no bridge, no port and not the loopback: want (-) and got (+):\n%s", diff)
	}
	if got := HostInterfaces(knownHost{}); len(got.Bystanders) != 0 || got.Uplink != 0 {
		t.Errorf("a host without links has %+v", got)
	}
}
