package host

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// addConnections makes UDP entries from consecutive addresses to a server.
func addConnections(t testing.TB, first netip.Addr, n int) {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	watchtest.Must(t, err)
	defer h.Close()
	server := net.IPv4(203, 0, 113, 1)
	for i, source := 0, first; i < n; i, source = i+1, source.Next() {
		from := net.IP(source.AsSlice())
		flow := &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET,
			Forward:    netlink.IPTuple{SrcIP: from, DstIP: server, Protocol: unix.IPPROTO_UDP, SrcPort: 4000, DstPort: 53},
			Reverse:    netlink.IPTuple{SrcIP: server, DstIP: from, Protocol: unix.IPPROTO_UDP, SrcPort: 53, DstPort: 4000},
			TimeOut:    600,
		}
		watchtest.Must(t, h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow))
	}
}

// natNetworks returns n networks of 250 guests each, all translated.
func natNetworks(n int) []network.Network {
	nets := make([]network.Network, n)
	for i := range nets {
		nets[i] = network.Network{
			Name: fmt.Sprint("net", i), Mode: network.ModeNAT,
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 250), byte(i % 250), 1}), 24)},
		}
	}
	return nets
}

func none() []netip.Addr { return nil }

// BenchmarkRetranslate compares other hosts' connections and deletes none.
func BenchmarkRetranslate(b *testing.B) {
	for _, entries := range []int{0, 1, 1000, 100_000} {
		for _, networks := range []int{1, 1000} {
			b.Run(fmt.Sprintf("entries=%d/networks=%d", entries, networks), func(b *testing.B) {
				watchtest.NewNamespace(b)
				addConnections(b, netip.MustParseAddr("172.16.0.1"), entries)
				var nets []Guests
				for _, n := range natNetworks(networks) {
					nets = append(nets, Guests{Network: n, Index: 1})
				}
				for b.Loop() {
					if n, err := Retranslate(b.Context(), nets, none); n != 0 || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

// behindAGuest returns a network all of whose connections come from a subnet behind
// a guest.
func behindAGuest(b *testing.B) []Guests {
	b.Helper()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}
	watchtest.Must(b, netlink.LinkAdd(link))
	watchtest.Must(b, netlink.LinkSetUp(link))
	own, behind := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.0/8")
	addr, err := netlink.ParseAddr(own.String())
	watchtest.Must(b, err)
	watchtest.Must(b, netlink.AddrAdd(link, addr))
	guest := net.IPv4(10, 0, 0, 2)
	watchtest.Must(b, netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Index, IP: guest, State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	watchtest.Must(b, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: guest, Dst: &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}}))
	n := network.Network{Mode: network.ModeNAT, Addresses: []netip.Prefix{own}, Routes: []netip.Prefix{behind}}
	return []Guests{{Network: n, Index: link.Index}}
}

// BenchmarkRetranslateAll deletes every connection.
func BenchmarkRetranslateAll(b *testing.B) {
	for _, entries := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("entries=", entries), func(b *testing.B) {
			watchtest.NewNamespace(b)
			nets := behindAGuest(b)
			for b.Loop() {
				b.StopTimer()
				addConnections(b, netip.MustParseAddr("10.1.0.1"), entries)
				b.StartTimer()
				if n, err := Retranslate(b.Context(), nets, none); n != entries || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
