package watch

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// Every write that stops forwarding is reported, whichever of the three settings it
// is to, and none that starts it.
func TestForwardingThatIsSwitchedOff(t *testing.T) {
	watchtest.NewNamespace(t)
	bridge := addBridge(t, "virbr0")
	places := []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/virbr0/forwarding",
		"net/ipv6/conf/all/forwarding", "net/ipv6/conf/virbr0/forwarding"}
	for _, key := range places {
		watchtest.SetSysctl(t, key, "1")
	}
	m := start(t, Config{})
	// The host's own switch is told once for each link: a change of a link ends
	// what was told of a write.
	told := func() (off bool) {
		link, err := netlink.LinkByIndex(bridge.Index)
		watchtest.Must(t, err)
		toggle := netlink.LinkSetUp
		if link.Attrs().Flags&net.FlagUp != 0 {
			toggle = netlink.LinkSetDown
		}
		watchtest.Must(t, toggle(link))
		for {
			if c := next(t, m, ForwardingOff, Updated); c.Kind == Updated {
				return off
			}
			off = true
		}
	}
	for _, key := range places {
		for value, want := range map[string]bool{"0": true, "1": false} {
			watchtest.SetSysctl(t, key, map[string]string{"0": "1", "1": "0"}[value])
			told()
			watchtest.SetSysctl(t, key, value)
			if off := told(); off != want {
				t.Errorf("%s = %s is told as switching it off: %v, want %v", key, value, off, want)
			}
		}
	}
}

// The kernel notifies of the host's setting once for each link. The consumer is
// notified once, however slow it is.
func TestForwardingOffIsToldOnce(t *testing.T) {
	watchtest.NewNamespace(t)
	for i := range 50 {
		addBridge(t, fmt.Sprint("virbr", i))
	}
	watchtest.SetSysctl(t, "net/ipv4/ip_forward", "1")
	m := start(t, Config{})
	watchtest.SetSysctl(t, "net/ipv4/ip_forward", "0")
	settle(t, m)
	if n := m.queueLength(); n > 1 {
		t.Errorf("%d changes are waiting, want one", n)
	}
	next(t, m, ForwardingOff)
}

// An advertisement that the kernel accepts is reported with its link.
func TestAdvertisementIsTold(t *testing.T) {
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	index := watchtest.Pair(t, "eth0", router, "r0", nil, nil)
	watchtest.SetSysctl(t, "net/ipv6/conf/all/forwarding", "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	m := start(t, Config{})
	link, err := netlink.LinkByIndex(index)
	watchtest.Must(t, err)
	watchtest.AdvertisePrefix(t, router, "r0", 30*time.Minute, "2001:db8:7::/64", func() bool {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		watchtest.Must(t, err)
		return len(addrs) > 1
	})
	if c := next(t, m, Advertised); c.New.Index != index || c.New.Name != "eth0" {
		t.Errorf("told %+v", c)
	}
}
