// Package network holds the value of one virtual network: what a client asked
// the service to govern. It parses the value from a libvirt <network> document
// or from D-Bus settings and validates it. It is independent of rules, the kernel
// and the bus, and does not check the host: whether a bridge exists or a subnet is
// taken is for the service to find out.
package network

import (
	"net/netip"
)

// Mode is what happens to traffic between the network and the outside.
type Mode string

// The forward modes of libvirt that concern a firewall.
const (
	ModeNAT      Mode = "nat"
	ModeRoute    Mode = "route"
	ModeOpen     Mode = "open"
	ModeIsolated Mode = "isolated"
)

// Limits on what one client may ask for.
const (
	MaxNameBytes   = 128
	MaxIfNameBytes = 15
	MaxXMLBytes    = 1 << 20
	MaxAddresses   = 64
	MaxRoutes      = 64
	MaxDevices     = 64
	MaxNetworks    = 4096
)

// Network is one validated virtual network. The zero value of each optional
// field means "not asked for".
type Network struct {
	Name   string // unique, 1 to 128 bytes
	UUID   string // lower-case hex with dashes; derived from Name where the client gave none
	Bridge string // the bridge's interface name
	Mode   Mode

	// Devices are the host interfaces that forwarded traffic may use; empty
	// means any. Not allowed with ModeOpen or ModeIsolated.
	Devices []string
	// Addresses are the host's own addresses on the bridge, each with the
	// length of its subnet's prefix, in the order given.
	Addresses []netip.Prefix
	// Routes are further subnets behind a guest of the bridge, masked.
	Routes []netip.Prefix

	NATAddresses  AddrRange // source addresses of translated IPv4 traffic; zero: the outgoing interface's
	NATAddresses6 AddrRange // the same for IPv6, with NATIPv6 only
	NATPorts      PortRange // source ports of translated TCP and UDP; zero: 1024-65535
	NATIPv6       bool      // IPv6 is translated too
	IPv6Guests    bool      // guests may use IPv6 among themselves without an IPv6 address of the host

	Zone string // firewalld zone asked for by name; "": the one for Mode

	DHCP bool // the host serves DHCP here
	DNS  bool // the host serves DNS here
	TFTP bool // the host serves TFTP here
}

// AddrRange is an inclusive range of addresses of one family.
type AddrRange struct{ First, Last netip.Addr }

// IsZero reports whether no range was given.
func (r AddrRange) IsZero() bool { return !r.First.IsValid() }

// String returns "first-last", or "" for no range.
func (r AddrRange) String() string {
	if r.IsZero() {
		return ""
	}
	return r.First.String() + "-" + r.Last.String()
}

// PortRange is an inclusive range of TCP and UDP ports.
type PortRange struct{ First, Last uint16 }

// IsZero reports whether no range was given.
func (r PortRange) IsZero() bool { return r == PortRange{} }

// UntranslatedTo returns the other subnets of the network that see the real source
// addresses of a subnet's guests: those behind a guest, or all if it is behind one
// itself. Replies find their way back within the network. Link-local subnets are not
// among them, since nothing is forwarded to them.
func (n Network) UntranslatedTo(from netip.Prefix) []netip.Prefix {
	behind := make(map[netip.Prefix]bool, len(n.Routes))
	for _, r := range n.Routes {
		behind[r.Masked()] = true
	}
	var out []netip.Prefix
	for _, p := range n.Subnets() {
		sameFamily := p.Addr().Is4() == from.Addr().Is4()
		if p != from && sameFamily && !OfOneLink(p) && (behind[p] || behind[from]) {
			out = append(out, p)
		}
	}
	return out
}

// Subnets returns the prefixes that guests of the network may have addresses in:
// those of Addresses, masked, then Routes, without repetition.
func (n Network) Subnets() []netip.Prefix {
	seen := make(map[netip.Prefix]bool, len(n.Addresses)+len(n.Routes))
	var out []netip.Prefix
	for _, list := range [][]netip.Prefix{n.Addresses, n.Routes} {
		for _, p := range list {
			if p = p.Masked(); !seen[p] {
				seen[p] = true
				out = append(out, p)
			}
		}
	}
	return out
}
