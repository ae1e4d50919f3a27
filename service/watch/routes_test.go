package watch

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

func addresses() cmp.Option {
	return cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
}

// wantRoutes waits for the default routes; gateways are left out of it.
func wantRoutes(t *testing.T, m *Monitor, want ...Route) {
	t.Helper()
	var diff string
	for limit := time.Now().Add(3 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		settle(t, m)
		got := m.DefaultRoutes()
		for i := range got {
			got[i].Gateway = netip.Addr{}
		}
		if diff = cmp.Diff(want, got, addresses()); len(want) == len(got) && diff == "" {
			return
		}
	}
	t.Fatal("default routes (-want +got):\n", diff)
}

func TestRouteFromRouterAdvertisement(t *testing.T) {
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	eth0 := watchtest.Pair(t, "eth0", router, "r0", nil, nil)
	m := start(t, Config{})
	wantRoutes(t, m)
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "2")
	watchtest.Advertise(t, router, "r0", 30*time.Minute, func() bool { return len(m.DefaultRoutes()) > 0 })
	wantRoutes(t, m, Route{IPv6: true, Index: eth0, FromRA: true})
	next(t, m, RoutesChanged)

	watchtest.Advertise(t, router, "r0", 0, func() bool { return len(m.DefaultRoutes()) == 0 })

	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	watchtest.Advertise(t, router, "r0", 30*time.Minute, func() bool { return len(m.DefaultRoutes()) > 0 })
	// What the service is there to prevent: forwarding drops the route.
	watchtest.SetSysctl(t, "net/ipv6/conf/all/forwarding", "1")
	wantRoutes(t, m)
}

func TestDefaultRoutesByHand(t *testing.T) {
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	eth0 := watchtest.Pair(t, "eth0", router, "r0", []string{"192.0.2.2/24", "2001:db8::2/64"}, []string{"192.0.2.1/24"})
	eth1 := watchtest.Pair(t, "eth1", router, "r1", []string{"198.51.100.2/24"}, nil)
	m := start(t, Config{})
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	gw0, gw1 := net.ParseIP("192.0.2.1"), net.ParseIP("198.51.100.1")

	watchtest.Must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: gw0}))
	watchtest.Must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: gw1, Table: 100}))
	wantRoutes(t, m, Route{Index: eth0})
	if gw := m.DefaultRoutes()[0].Gateway; gw != netip.MustParseAddr("192.0.2.1") {
		t.Error("gateway is", gw)
	}
	// A replacement is told without the deletion of what it replaces.
	watchtest.Must(t, netlink.RouteReplace(&netlink.Route{Dst: everywhere, Gw: gw1}))
	wantRoutes(t, m, Route{Index: eth1})
	watchtest.Must(t, netlink.RouteReplace(&netlink.Route{Dst: everywhere, MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: eth0, Gw: gw0}, {LinkIndex: eth1, Gw: gw1}}}))
	wantRoutes(t, m, Route{Index: eth0}, Route{Index: eth1})

	// That a link went down is all that is told of the IPv4 routes over it.
	watchtest.Must(t, netlink.RouteReplace(&netlink.Route{Dst: everywhere, Gw: gw1}))
	wantRoutes(t, m, Route{Index: eth1})
	link, err := netlink.LinkByIndex(eth1)
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.LinkSetDown(link))
	wantRoutes(t, m)

	// So it is with an address that a route prefers.
	src := net.ParseIP("192.0.2.99")
	extra := &netlink.Addr{IPNet: &net.IPNet{IP: src, Mask: net.CIDRMask(32, 32)}}
	link, err = netlink.LinkByIndex(eth0)
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.AddrAdd(link, extra))
	watchtest.Must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: gw0, Src: src}))
	wantRoutes(t, m, Route{Index: eth0})
	watchtest.Must(t, netlink.AddrDel(link, extra))
	wantRoutes(t, m)
}
