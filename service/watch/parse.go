package watch

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// parseLink parses the body of a link message. ok is false for messages of another
// family: when a port leaves a bridge, the kernel sends an RTM_DELLINK of the family
// AF_BRIDGE with the port's name.
func parseLink(b []byte) (l Link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	l.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	l.Up = binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0
	for kind, value := range nfnl.All(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(value)
		case unix.IFLA_PROP_LIST:
			l.AltNames = parseAltNames(value)
		case unix.IFLA_WIRELESS:
			// A wireless driver's own event: it has only the link's name.
			return Link{}, false
		case unix.IFLA_MASTER:
			if len(value) == 4 {
				l.Master = int(int32(binary.NativeEndian.Uint32(value)))
			}
		case unix.IFLA_LINKINFO:
			for kind, value := range nfnl.All(value) {
				if kind == unix.IFLA_INFO_KIND {
					l.Bridge = unix.ByteSliceToString(value) == "bridge"
					l.Tap = unix.ByteSliceToString(value) == "tun" // the kernel's name for both
				}
			}
		}
	}
	return l, l.Index > 0 && l.Name != ""
}

// parseAddress parses the body of an address message.
func parseAddress(b []byte) (a Address, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg || (b[0] != unix.AF_INET && b[0] != unix.AF_INET6) {
		return Address{}, false
	}
	a.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	var own, other netip.Addr
	for kind, value := range nfnl.All(b[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			own, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(value)
		}
	}
	if !own.IsValid() { // IPv6 without a peer has only this one
		own = other
	}
	if a.Prefix = netip.PrefixFrom(own, int(b[1])); !a.Prefix.IsValid() {
		return Address{}, false
	}
	if other.IsValid() && other != own {
		a.Prefix, a.Peer = netip.PrefixFrom(own, own.BitLen()), netip.PrefixFrom(other, int(b[1]))
	}
	return a, true
}

// switchesForwardingOff reports whether a netconf message (struct netconfmsg, one
// byte and padding) has IP forwarding off, of all links or of one. The kernel also
// sends the settings of a new link.
func switchesForwardingOff(b []byte) bool {
	const header, forwarding = 4, 2 // NETCONFA_FORWARDING, linux/netconf.h
	if len(b) < header || (b[0] != unix.AF_INET && b[0] != unix.AF_INET6) {
		return false
	}
	for kind, value := range nfnl.All(b[header:]) {
		if kind == forwarding && len(value) == 4 {
			return binary.NativeEndian.Uint32(value) == 0
		}
	}
	return false
}

// parsePrefix returns the interface of struct prefixmsg, which the kernel sends for
// each prefix of a router advertisement that it accepted.
func parsePrefix(b []byte) (index int, ok bool) {
	if len(b) < 12 || b[0] != unix.AF_INET6 {
		return 0, false
	}
	index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	return index, index > 0
}

// isDefaultRoute reports whether a route message is of a default route in the main
// table, by its fixed part.
func isDefaultRoute(b []byte) bool {
	const destinationLength, table = 1, 4
	return len(b) >= unix.SizeofRtMsg && b[destinationLength] == 0 && b[table] == unix.RT_TABLE_MAIN
}

// parseDefaultRoute parses the body of a route message: one route for each next hop
// of a default route, none for anything else.
func parseDefaultRoute(b []byte) []Route {
	const protocol, routeType = 5, 7
	if !isDefaultRoute(b) || b[routeType] != unix.RTN_UNICAST {
		return nil
	}
	base := Route{IPv6: b[0] == unix.AF_INET6, FromRA: b[protocol] == unix.RTPROT_RA}
	single := base
	var routes []Route
	for kind, value := range nfnl.All(b[unix.SizeofRtMsg:]) {
		if kind == unix.RTA_MULTIPATH {
			routes = append(routes, nextHops(base, value)...)
		}
		single.parseAttribute(kind, value)
	}
	if single.Index > 0 {
		routes = append(routes, single)
	}
	return routes
}

// parseAttribute parses one attribute of a route or of a next hop.
func (r *Route) parseAttribute(kind uint16, value []byte) {
	switch kind {
	case unix.RTA_OIF:
		if len(value) == 4 {
			r.Index = int(binary.NativeEndian.Uint32(value))
		}
	case unix.RTA_GATEWAY:
		r.Gateway, _ = netip.AddrFromSlice(value)
	case unix.RTA_VIA: // IPv4 over an IPv6 gateway: family, address
		if len(value) > 2 {
			r.Gateway, _ = netip.AddrFromSlice(value[2:])
		}
	}
}

// nextHops parses the value of RTA_MULTIPATH: struct rtnexthop, each followed by
// attributes.
func nextHops(base Route, b []byte) []Route {
	var routes []Route
	for len(b) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			break
		}
		r := base
		r.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
		for kind, value := range nfnl.All(b[unix.SizeofRtNexthop:length]) {
			r.parseAttribute(kind, value)
		}
		if r.Index > 0 {
			routes = append(routes, r)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return routes
}

// errorNumber returns the number that NLMSG_ERROR and NLMSG_DONE begin with; 0 is
// success.
func errorNumber(b []byte) syscall.Errno {
	if len(b) < 4 {
		return 0
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(b)))
}
