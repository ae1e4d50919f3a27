package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netlink runs fn with a netlink handle in the space's network namespace.
func (s *space) netlink(what string, fn func(*netlink.Handle) error) error {
	nl, err := netlink.NewHandleAt(netns.NsHandle(s.net.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("%s: opening netlink: %w", what, err)
	}
	defer nl.Close()
	if err := fn(nl); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// addVeth makes a veth pair: the peer's port on the host, in the bridge if one
// is named, and eth0 on the peer.
func (h *Host) addVeth(p *Peer, bridge string) error {
	return h.space.netlink("connecting "+p.name, func(nl *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = p.port
		if bridge != "" {
			master, err := nl.LinkByName(bridge)
			if err != nil {
				return fmt.Errorf("finding bridge %s: %w", bridge, err)
			}
			attrs.MasterIndex = master.Attrs().Index
		}
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(p.space.net.Fd()))}
		if err := nl.LinkAdd(veth); err != nil {
			return err
		}
		return raise(nl, p.port, nil)
	})
}

// raise adds addresses to a device and brings it up, and lo with it.
func raise(nl *netlink.Handle, device string, addrs []netip.Prefix) error {
	for _, name := range []string{"lo", device} {
		link, err := nl.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("bringing %s up: %w", name, err)
		}
	}
	link, err := nl.LinkByName(device)
	if err != nil {
		return err
	}
	for _, prefix := range addrs {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", device, prefix, err)
		}
	}
	return nil
}

// addRoute adds a route; no subnet means the default route. One that is there
// already is fine.
func addRoute(nl *netlink.Handle, device string, subnet netip.Prefix, via netip.Addr) error {
	link, err := nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("finding %s: %w", device, err)
	}
	if !subnet.IsValid() {
		subnet = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if via.Is6() {
			subnet = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(subnet), Gw: via.AsSlice()}
	if err := nl.RouteAdd(route); err != nil && err != unix.EEXIST {
		return fmt.Errorf("routing %s through %s: %w", subnet, via, err)
	}
	return nil
}

// addresses returns the global addresses of a device of the host.
func (h *Host) addresses(device string) ([]netip.Prefix, error) {
	var found []netip.Prefix
	err := h.space.netlink("reading the addresses of "+device, func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(device)
		if err != nil {
			return err
		}
		addrs, err := nl.AddrList(link, netlink.FAMILY_ALL)
		for errors.Is(err, netlink.ErrDumpInterrupted) { // by a change meanwhile
			addrs, err = nl.AddrList(link, netlink.FAMILY_ALL)
		}
		if err != nil {
			return err
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if ones, _ := a.Mask.Size(); ok && !a.IP.IsLinkLocalUnicast() {
				found = append(found, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
		return nil
	})
	return found, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func parsePrefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("reading address %q: %w", text, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func masked(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		out = append(out, p.Masked())
	}
	return out
}
