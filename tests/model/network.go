// Package model predicts what becomes of a packet on a host with virtual
// networks: first what libvirt 11.3's own rules do with it, then each deliberate
// difference (docs/differences.md) that changes that. It knows nothing of the rules of the
// service, which tests compare with it.
package model

import "net/netip"

// Mode is a network's forward mode, as libvirt's document has it.
type Mode string

// The forward modes that libvirt has a bridge of its own for.
const (
	Isolated Mode = ""
	NAT      Mode = "nat"
	Route    Mode = "route"
	Open     Mode = "open"
)

// Network is what the firewall needs to know of a virtual network.
type Network struct {
	Name, Bridge string
	Mode         Mode
	Addresses    []netip.Prefix // the host's on the bridge, with the prefix length of their subnets
	Devices      []string       // what forwarded traffic may use; none means all
	NAT6         bool           // <nat ipv6='yes'>
	GuestIPv6    bool           // <network ipv6='yes'>
	Pool         Range          // of IPv4 source addresses; the zero value means the device's own
	Pool6        Range          // of IPv6, from the metadata; the rules are as libvirt would have them
	Ports        [2]uint16      // of translated TCP and UDP; {0, 0} means libvirt's 1024-65535
	Routes       []Behind
}

// Range is a range of addresses with both ends in it.
type Range struct{ First, Last netip.Addr }

// Behind is a subnet behind a guest: a <route>.
type Behind struct {
	Subnet  netip.Prefix
	Gateway netip.Addr
}

// Contains reports whether an address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.IsValid() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// own returns the subnets of a family that the network has itself.
func (n *Network) own(ipv6 bool) (subnets []netip.Prefix) {
	for _, a := range n.Addresses {
		if a.Addr().Is6() == ipv6 {
			subnets = append(subnets, a.Masked())
		}
	}
	return subnets
}

// behind returns the subnets of a family behind the network's guests.
func (n *Network) behind(ipv6 bool) (subnets []netip.Prefix) {
	for _, r := range n.Routes {
		if r.Subnet.Addr().Is6() == ipv6 {
			subnets = append(subnets, r.Subnet)
		}
	}
	return subnets
}

// translates reports whether the network's packets of a family leave under
// another source address. In libvirt, IPv6 has to ask for that.
func (n *Network) translates(ipv6 bool) bool {
	return n.Mode == NAT && (!ipv6 || n.NAT6)
}

// ports returns the range of translated source ports: libvirt's default keeps
// guests off those that a server may trust.
func (n *Network) ports() [2]uint16 {
	if n.Ports == [2]uint16{} {
		return [2]uint16{1024, 65535}
	}
	return n.Ports
}

func anyContains(subnets []netip.Prefix, a netip.Addr) bool {
	for _, s := range subnets {
		if s.Contains(a) {
			return true
		}
	}
	return false
}
