package network

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"libvirt.org/go/libvirtxml"
)

// parseAddr parses one address. A scope such as %eth0 is refused: the bridge
// is the scope.
func parseAddr(field, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, invalid(field, "an address is missing: give one")
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, invalid(field, "%s is not an IP address: correct it", quote(text))
	}
	if a.Zone() != "" {
		return netip.Addr{}, invalid(field, "%s names an interface after the %%: leave that out", quote(text))
	}
	return a, nil
}

// parseFamily parses an address with a family attribute, whose absence means
// IPv4, as in libvirt.
func parseFamily(field, family, text string) (netip.Addr, error) {
	a, err := parseAddr(field, text)
	if err != nil {
		return a, err
	}
	switch family {
	case "", "ipv4":
		if !a.Is4() {
			return a, invalid(field, "%s is IPv6: add family='ipv6'", a)
		}
	case "ipv6":
		if a.Is4() {
			return a, invalid(field, "%s is IPv4: remove family='ipv6'", a)
		}
	default:
		return a, invalid(field, "the family %s is unknown: use ipv4 or ipv6", quote(family))
	}
	return a, nil
}

// prefixBits returns the length of a netmask or a prefix; given is false for neither.
func prefixBits(field string, a netip.Addr, netmask string, prefix uint) (n int, given bool, err error) {
	if netmask == "" {
		if prefix > uint(a.BitLen()) {
			return 0, true, invalid(field, "prefix %d is longer than the %d bits of %s: correct it", prefix, a.BitLen(), a)
		}
		return int(prefix), prefix > 0, nil
	}
	if prefix > 0 {
		return 0, true, invalid(field, "%s has both a netmask and a prefix: keep one", a)
	}
	mask, err := netip.ParseAddr(netmask)
	if err != nil || !mask.Is4() || !a.Is4() {
		return 0, true, invalid(field, "%s is not an IPv4 netmask for %s: use prefix instead", quote(netmask), a)
	}
	octets := mask.As4()
	m := binary.BigEndian.Uint32(octets[:])
	n = bits.LeadingZeros32(^m)
	if n == 0 || m<<n != 0 {
		return 0, true, invalid(field, "%s is not a netmask of ones followed by zeros: correct it", quote(netmask))
	}
	return n, true, nil
}

// naturalBits returns the prefix's length that libvirt assumes if a document has
// none: that of the address's class, and 64 for IPv6.
func naturalBits(a netip.Addr) (int, error) {
	if !a.Is4() {
		return 64, nil
	}
	switch first := a.As4()[0]; {
	case first < 128:
		return 8, nil
	case first < 192:
		return 16, nil
	case first < 224:
		return 24, nil
	}
	return 0, invalid("<ip>", "%s has neither netmask nor prefix: add one", a)
}

// parseRoute parses the subnet of a <route>. libvirt assumes no prefix for routes:
// without one it accepts only 0.0.0.0 and ::, as default routes.
func parseRoute(r libvirtxml.NetworkRoute) (netip.Prefix, error) {
	a, err := parseFamily("<route>", r.Family, r.Address)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a.IsUnspecified() && r.Prefix == 0 && (r.Netmask == "" || r.Netmask == "0.0.0.0") {
		return netip.Prefix{}, defaultRoute(a)
	}
	n, given, err := prefixBits("<route>", a, r.Netmask, r.Prefix)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !given {
		return netip.Prefix{}, invalid("<route>", "%s has neither netmask nor prefix: add one", a)
	}
	return netip.PrefixFrom(a, n), nil
}

// defaultRoute refuses a default route through a guest.
func defaultRoute(a netip.Addr) error {
	whole := netip.PrefixFrom(a, 0)
	return invalid("<route>", "%s is the host's default route through a guest: every address would belong to the network, "+
		"so that its guests could send from any address; "+
		"name the subnets behind the guest instead, or set the route on the host with ip route", whole)
}

// parseSubnet parses "192.168.122.1/24".
func parseSubnet(field, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, invalid(field, `%s is not an address with the length of its prefix: write "192.168.122.1/24" or "fd00::1/64"`, quote(text))
	}
	return p, nil
}
