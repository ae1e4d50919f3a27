package network

import (
	"net/netip"
	"slices"
	"strconv"
)

// defaultNATPorts are the source ports of translated TCP and UDP if the client sets
// none. libvirt keeps guests off the privileged ports, which NFS servers and others
// trust.
var defaultNATPorts = PortRange{First: 1024, Last: 65535}

// Equal reports whether both networks ask for the same. The order of lists matters,
// since clients see it.
func (n Network) Equal(o Network) bool {
	a, b := n.normal(), o.normal()
	return a.Name == b.Name && a.UUID == b.UUID && a.Bridge == b.Bridge && a.Mode == b.Mode &&
		slices.Equal(a.Devices, b.Devices) &&
		slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.Routes, b.Routes) &&
		a.NATAddresses == b.NATAddresses && a.NATAddresses6 == b.NATAddresses6 &&
		a.NATPorts == b.NATPorts && a.NATIPv6 == b.NATIPv6 && a.IPv6Guests == b.IPv6Guests &&
		a.Zone == b.Zone && a.DHCP == b.DHCP && a.DNS == b.DNS && a.TFTP == b.TFTP
}

// normal returns the network in normal form. libvirt writes the default port range
// into the definition of a running network, so the range and its absence must be
// equal; and it allows two routes to one subnet that differ in the metric, which a
// firewall ignores.
func (n Network) normal() Network {
	if n.NATPorts == defaultNATPorts {
		n.NATPorts = PortRange{}
	}
	n.Devices = compact(n.Devices)
	n.Addresses = compact(n.Addresses)
	n.Routes = distinct(n.Routes)
	return n
}

// String returns "first-last", or "" for no range.
func (r PortRange) String() string {
	if r.IsZero() {
		return ""
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// compact copies a list, so that networks never share memory with callers, and
// returns nil for an empty one.
func compact[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

func distinct(list []netip.Prefix) []netip.Prefix {
	if len(list) == 0 {
		return nil
	}
	seen := make(map[netip.Prefix]bool, len(list))
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}
