package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// Every write that stops forwarding is told, whichever of the three places it
// goes to, and none that starts it.
func TestForwardingThatIsSwitchedOff(t *testing.T) {
	watchtest.NewNamespace(t)
	addBridge(t, "virbr0")
	places := []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/virbr0/forwarding",
		"net/ipv6/conf/all/forwarding", "net/ipv6/conf/virbr0/forwarding"}
	for _, key := range places {
		watchtest.SetSysctl(t, key, "1")
	}
	m := start(t, Config{})
	for _, key := range places {
		watchtest.SetSysctl(t, key, "0")
		next(t, m, ForwardingOff)
		settle(t, m)
		watchtest.SetSysctl(t, key, "1")
		settle(t, m)
		if c, told := m.queue.pop(); told && c.Kind == ForwardingOff {
			t.Errorf("%s: switching it on is told as switching it off", key)
		}
	}
}

// The kernel tells of the host's switch once for each link. The consumer is
// told once, however slow it is.
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

// An advertisement that the kernel accepts is told with its link.
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
