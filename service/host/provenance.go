package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbourTable holds the links on which the host has resolved an address: a guest
// that sent it a packet to forward had asked for its own address on that link
// before, and gets its answers there. A route is no proof, since it leads to the
// bridge for unrelated packets as well.
type neighbourTable map[netip.Addr][]int

func neighbours(family uint8) (neighbourTable, error) {
	const resolved = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	all, err := netlink.NeighList(0, int(family))
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing neighbours: %w", err)
	}
	out := neighbourTable{}
	for _, n := range all {
		addr, ok := netip.AddrFromSlice(n.IP)
		if ok && n.State&resolved != 0 && len(n.HardwareAddr) > 0 && !slices.Contains(out[addr.Unmap()], n.LinkIndex) {
			out[addr.Unmap()] = append(out[addr.Unmap()], n.LinkIndex)
		}
	}
	return out, nil
}

// proven returns those of the connections whose source is at its network's bridge
// and nowhere else.
func (m *matcher) proven(found []connection) (out []connection, err error) {
	if len(found) == 0 {
		return nil, nil
	}
	known, err := neighbours(m.family())
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		position, ok := m.network(c.from)
		if ok && m.nets[position].has(c.from, known) {
			out = append(out, c)
		}
	}
	return out, nil
}

// has reports whether an address is at the network's bridge. For an address behind a
// guest, the guest that its route names must be.
func (g Guests) has(addr netip.Addr, known neighbourTable) bool {
	if g.Index == 0 {
		return false
	}
	if links := known[addr]; len(links) > 0 {
		return len(links) == 1 && links[0] == g.Index
	}
	behind := func(p netip.Prefix) bool { return p.Contains(addr) }
	if !slices.ContainsFunc(g.Network.Routes, behind) {
		return false
	}
	routes, err := netlink.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: false})
	if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_UNICAST || routes[0].LinkIndex != g.Index {
		return false
	}
	via, ok := netip.AddrFromSlice(routes[0].Gw)
	return ok && slices.Equal(known[via.Unmap()], []int{g.Index})
}
