package model

import (
	"fmt"
	"strings"
)

// XML returns the network's document, as libvirt has it.
func (n *Network) XML() string {
	var b strings.Builder
	b.WriteString("<network")
	if n.GuestIPv6 {
		b.WriteString(" ipv6='yes'")
	}
	fmt.Fprintf(&b, "><name>%s</name>%s<bridge name='%s'/>", n.Name, n.forward(), n.Bridge)
	for _, a := range n.Addresses {
		fmt.Fprintf(&b, "<ip family='%s' address='%s' prefix='%d'/>", family(a.Addr().Is6()), a.Addr(), a.Bits())
	}
	for _, r := range n.Routes {
		fmt.Fprintf(&b, "<route family='%s' address='%s' prefix='%d' gateway='%s'/>",
			family(r.Subnet.Addr().Is6()), r.Subnet.Addr(), r.Subnet.Bits(), r.Gateway)
	}
	b.WriteString("</network>")
	return b.String()
}

// forward returns the element of the mode. One device is an attribute, as most
// documents have it; several are elements.
func (n *Network) forward() string {
	if n.Mode == Isolated {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<forward mode='%s'", n.Mode)
	if len(n.Devices) == 1 {
		fmt.Fprintf(&b, " dev='%s'", n.Devices[0])
	}
	b.WriteString(">")
	if len(n.Devices) > 1 {
		for _, device := range n.Devices {
			fmt.Fprintf(&b, "<interface dev='%s'/>", device)
		}
	}
	b.WriteString(n.nat() + "</forward>")
	return b.String()
}

func (n *Network) nat() string {
	if n.Mode != NAT {
		return ""
	}
	var b strings.Builder
	b.WriteString("<nat")
	if n.NAT6 {
		b.WriteString(" ipv6='yes'")
	}
	b.WriteString(">")
	if n.Pool.First.IsValid() {
		fmt.Fprintf(&b, "<address start='%s' end='%s'/>", n.Pool.First, n.Pool.Last)
	}
	if n.Ports[1] != 0 {
		fmt.Fprintf(&b, "<port start='%d' end='%d'/>", n.Ports[0], n.Ports[1])
	}
	b.WriteString("</nat>")
	return b.String()
}

func family(ipv6 bool) string {
	if ipv6 {
		return "ipv6"
	}
	return "ipv4"
}
