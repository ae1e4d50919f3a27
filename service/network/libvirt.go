package network

import (
	"net/netip"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// fromLibvirt returns the value of a decoded document and of our element in its
// metadata, nil for none.
func fromLibvirt(def *libvirtxml.Network, own *ownMetadata) (Network, error) {
	n := Network{
		Name:       def.Name,
		IPv6Guests: def.IPv6 == "yes",
		DNS:        def.DNS == nil || def.DNS.Enable != "no",
	}
	steps := []func() error{
		func() error { return n.readUUID(def.UUID) },
		func() error { return n.readForward(def.Forward) },
		func() error { return n.readBridge(def.Bridge) },
		func() error { return n.readIPs(def.IPs) },
		func() error { return n.readRoutes(def.Routes) },
		func() error { return n.readOwn(own) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Network{}, err
		}
	}
	return n, nil
}

func (n *Network) readUUID(text string) (err error) {
	if text == "" {
		n.UUID = deriveUUID(n.Name)
		return nil
	}
	n.UUID, err = parseUUID(text)
	return err
}

func (n *Network) readBridge(b *libvirtxml.NetworkBridge) error {
	if b != nil {
		n.Bridge, n.Zone = b.Name, b.Zone
	}
	// libvirt also accepts a pattern such as virbr%d, and chooses as if none was given.
	if n.Bridge == "" || strings.Contains(n.Bridge, "%d") {
		return invalid("Bridge", "the document names no bridge, since libvirt chooses one when the network starts: "+
			"start the network and pass what virsh net-dumpxml prints then, or add <bridge name='...'/>")
	}
	return nil
}

// readForward reads libvirt's <forward>. Its absence means an isolated network.
func (n *Network) readForward(f *libvirtxml.NetworkForward) error {
	if f == nil {
		n.Mode = ModeIsolated
		return nil
	}
	switch f.Mode {
	case "", "nat":
		n.Mode = ModeNAT
	case "route":
		n.Mode = ModeRoute
	case "open":
		n.Mode = ModeOpen
	case "none":
		n.Mode = ModeIsolated
	case "bridge", "private", "vepa", "passthrough", "hostdev":
		return invalid("ForwardMode", "libvirt makes no firewall rules for networks of mode %s, "+
			"whose guests are on the host's own network: only nat, route, open and isolated networks can be governed", f.Mode)
	default:
		return invalid("ForwardMode", "%s is not a forward mode of libvirt: use nat, route or open, or leave <forward> out", quote(f.Mode))
	}
	if len(f.PFs) > 0 || len(f.Addresses) > 0 {
		return invalid("<forward>", "<pf> and <address> are for hostdev networks: remove them")
	}
	if err := n.readDevices(f.Dev, f.Interfaces); err != nil {
		return err
	}
	return n.readNAT(f.NAT, false)
}

// readDevices reads the two ways of naming the interfaces to forward to.
func (n *Network) readDevices(dev string, list []libvirtxml.NetworkForwardInterface) error {
	for _, i := range list {
		if i.Dev == "" {
			return invalid("<forward>", "an <interface> has no dev: name the interface")
		}
		n.Devices = append(n.Devices, i.Dev)
	}
	switch {
	case dev == "":
		return nil
	case len(list) == 0:
		n.Devices = []string{dev}
	case list[0].Dev != dev:
		return invalid("<forward>", "dev is %s but the first <interface> is %s: they must be the same", quote(dev), quote(list[0].Dev))
	}
	return nil
}

// readNAT reads <nat>, libvirt's or our own, which may have an IPv6 pool too.
func (n *Network) readNAT(nat *libvirtxml.NetworkForwardNAT, own bool) error {
	if nat == nil {
		return nil
	}
	if n.Mode != ModeNAT {
		return invalid("<nat>", "a network of mode %s translates nothing: remove it, or use mode nat", n.Mode)
	}
	n.NATIPv6 = nat.IPv6 == "yes"
	if len(nat.Addresses) > 1 && !own {
		return invalid("<nat>", "it has more than one <address>: keep one")
	}
	for _, a := range nat.Addresses {
		if err := n.readPool(a, own); err != nil {
			return err
		}
	}
	for _, p := range nat.Ports {
		if p.Start == 0 || p.End == 0 || p.Start > 65535 || p.End > 65535 || p.Start > p.End {
			return invalid("NATPortRange", "<port> is not a range: give start and end from 1 to 65535 in order")
		}
		n.NATPorts = PortRange{First: uint16(p.Start), Last: uint16(p.End)}
	}
	return nil
}

// readPool reads one <address> of <nat>.
func (n *Network) readPool(a libvirtxml.NetworkForwardNATAddress, own bool) error {
	first, err := parseAddr("<nat> address start", a.Start)
	if err != nil {
		return err
	}
	last, err := parseAddr("<nat> address end", a.End)
	if err != nil {
		return err
	}
	if first.Is4() != last.Is4() {
		return invalid("<nat>", "%s and %s are of different families: give both of one", first, last)
	}
	pool := &n.NATAddresses
	if !first.Is4() {
		if !own {
			return invalid("<nat>", "%s is IPv6, and libvirt's pool is IPv4 only: put it in the metadata element, see docs/metadata.md", first)
		}
		pool = &n.NATAddresses6
	}
	if !pool.IsZero() {
		return invalid("<nat>", "two address ranges of one family are given: keep one")
	}
	*pool = AddrRange{First: first, Last: last}
	return nil
}

func (n *Network) readIPs(ips []libvirtxml.NetworkIP) error {
	if len(ips) > MaxAddresses {
		return &LimitError{Field: "Addresses", Got: len(ips), Max: MaxAddresses, Unit: "addresses"}
	}
	for _, ip := range ips {
		addr, err := parseFamily("<ip>", ip.Family, ip.Address)
		if err != nil {
			return err
		}
		bits, given, err := prefixBits("<ip>", addr, ip.Netmask, ip.Prefix)
		if err != nil {
			return err
		}
		if !given {
			if bits, err = naturalBits(addr); err != nil {
				return err
			}
		}
		if ip.TFTP != nil && !addr.Is4() {
			return invalid("<ip>", "%s is IPv6, for which libvirt has no <tftp>: move it to an IPv4 address", addr)
		}
		n.Addresses = append(n.Addresses, netip.PrefixFrom(addr, bits))
		n.DHCP = n.DHCP || ip.DHCP != nil
		n.TFTP = n.TFTP || ip.TFTP != nil && ip.TFTP.Root != ""
	}
	return nil
}

// readRoutes reads libvirt's <route>, whose gateway must be a guest.
func (n *Network) readRoutes(routes []libvirtxml.NetworkRoute) error {
	if len(routes) > MaxRoutes {
		return &LimitError{Field: "Routes", Got: len(routes), Max: MaxRoutes, Unit: "routes"}
	}
	for _, r := range routes {
		p, err := parseRoute(r)
		if err != nil {
			return err
		}
		gateway, err := parseFamily("<route> gateway", r.Family, r.Gateway)
		if err != nil {
			return err
		}
		if !n.reaches(gateway) {
			return invalid("<route>", "its gateway %s is in no subnet of the network: use the address of a guest, or add an <ip>", gateway)
		}
		n.Routes = append(n.Routes, p)
	}
	return nil
}

func (n *Network) reaches(a netip.Addr) bool {
	for _, p := range n.Addresses {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
