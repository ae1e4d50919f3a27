package network

import (
	"encoding/xml"
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// XML returns the network as a libvirt <network> document, with our metadata
// element where libvirt's elements do not suffice. FromXML reads the same network
// from it. It has no DHCP ranges and no TFTP folder, which a network does not
// hold.
func (n Network) XML() ([]byte, error) {
	n = n.normal()
	if err := n.Validate(); err != nil {
		return nil, err
	}
	def := libvirtxml.Network{
		Name:    n.Name,
		UUID:    n.UUID,
		Forward: n.forwardXML(),
		Bridge:  &libvirtxml.NetworkBridge{Name: n.Bridge, Zone: n.Zone},
	}
	if n.IPv6Guests {
		def.IPv6 = "yes"
	}
	if !n.DNS {
		def.DNS = &libvirtxml.NetworkDNS{Enable: "no"}
	}
	if own := n.ownXML(); own != "" {
		def.Metadata = &libvirtxml.NetworkMetadata{XML: own}
	}
	for i, p := range n.Addresses {
		ip := libvirtxml.NetworkIP{Address: p.Addr().String(), Prefix: uint(p.Bits())}
		if p.Addr().Is6() {
			ip.Family = "ipv6"
		}
		if i == 0 && n.DHCP {
			ip.DHCP = &libvirtxml.NetworkDHCP{}
		}
		def.IPs = append(def.IPs, ip)
	}
	doc, err := xml.MarshalIndent(&def, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing network %s as XML: %w", quote(n.Name), err)
	}
	return append(doc, '\n'), nil
}

// forwardXML returns nil for an isolated network, as libvirt does.
func (n Network) forwardXML() *libvirtxml.NetworkForward {
	if n.Mode == ModeIsolated {
		return nil
	}
	f := &libvirtxml.NetworkForward{Mode: string(n.Mode)}
	for _, dev := range n.Devices {
		f.Interfaces = append(f.Interfaces, libvirtxml.NetworkForwardInterface{Dev: dev})
	}
	// libvirt and its tools look for a single device in dev only.
	if len(n.Devices) > 0 {
		f.Dev = n.Devices[0]
	}
	var nat libvirtxml.NetworkForwardNAT
	used := false
	if n.NATIPv6 {
		nat.IPv6, used = "yes", true
	}
	if r := n.NATAddresses; !r.IsZero() {
		nat.Addresses = []libvirtxml.NetworkForwardNATAddress{{Start: r.First.String(), End: r.Last.String()}}
		used = true
	}
	if r := n.NATPorts; !r.IsZero() {
		nat.Ports = []libvirtxml.NetworkForwardNATPort{{Start: uint(r.First), End: uint(r.Last)}}
		used = true
	}
	if used {
		f.NAT = &nat
	}
	return f
}
