package host

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// track makes a UDP connection as if packets of it had been forwarded.
func track(t *testing.T, from, to string) {
	t.Helper()
	a, b := net.ParseIP(from).To4(), net.ParseIP(to).To4()
	watchtest.Must(t, netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 600,
		Forward: netlink.IPTuple{SrcIP: a, DstIP: b, Protocol: unix.IPPROTO_UDP, SrcPort: 4000, DstPort: 53},
		Reverse: netlink.IPTuple{SrcIP: b, DstIP: a, Protocol: unix.IPPROTO_UDP, SrcPort: 53, DstPort: 4000},
	}))
}

func TestNeedsOverTheHost(t *testing.T) {
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	watchtest.Pair(t, "eth0", router, "r0", []string{"203.0.113.2/24"}, nil)
	watchtest.SetSysctl(t, "net/ipv4/ip_forward", "0")
	m, err := watch.Start(t.Context(), watch.Config{})
	watchtest.Must(t, err)
	t.Cleanup(func() { m.Close() })
	var log strings.Builder
	needs := NewNeeds(m, slog.New(slog.NewTextHandler(&log, nil)))

	if _, problem, err := needs.Forward(t.Context(), Demand{V4: true}); problem != "" || err != nil {
		t.Error("forwarding: ", problem, err)
	}
	if got := watchtest.Sysctl(t, "net/ipv4/ip_forward"); got != "1" {
		t.Error("forwarding is ", got)
	}

	track(t, "192.168.122.2", "203.0.113.1")
	track(t, "192.168.122.2", "203.0.113.2") // an address of the host's own
	eth0, err := netlink.LinkByName("eth0")
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, IP: net.IPv4(192, 168, 122, 2), State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	nets := []Guests{{Index: eth0.Attrs().Index, Network: network.Network{Name: "default", Mode: network.ModeNAT, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.122.1/24")}}}}
	watchtest.Must(t, needs.Retranslate(t.Context(), nets))
	left, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	watchtest.Must(t, err)
	if len(left) != 1 || left[0].Forward.DstIP.String() != "203.0.113.2" {
		t.Error("connections left: ", left)
	}
	if !strings.Contains(log.String(), "connections=1") {
		t.Error("logged: ", log.String())
	}
	watchtest.Must(t, needs.FillChecksums(t.Context(), nil))
}
