package main

import (
	"fmt"
	"strings"
)

// network is the i-th of many networks like libvirt's default one.
type network struct{ name, bridge, address string }

func numbered(i int) network {
	return network{
		name:    fmt.Sprintf("net%04d", i),
		bridge:  fmt.Sprintf("virbr%d", i),
		address: fmt.Sprintf("10.%d.%d.1", 64+i/256, i%256),
	}
}

// subnet returns the address with its length.
func (n network) subnet() string { return n.address + "/24" }

// prefix returns the subnet as rules have it.
func (n network) prefix() string { return strings.TrimSuffix(n.address, "1") + "0/24" }

// guest returns an address of the network that is not the host's.
func (n network) guest() string { return strings.TrimSuffix(n.address, "1") + "10/24" }

// xml returns the network as libvirt writes it, with the given first source port of
// translated connections: another one makes it another network.
func (n network) xml(firstPort int) string {
	base := strings.TrimSuffix(n.address, "1")
	return fmt.Sprintf(`<network>
  <name>%s</name>
  <forward mode='nat'>
    <nat><port start='%d' end='65535'/></nat>
  </forward>
  <bridge name='%s' stp='on' delay='0'/>
  <ip address='%s' netmask='255.255.255.0'>
    <dhcp><range start='%s2' end='%s254'/></dhcp>
  </ip>
</network>
`, n.name, firstPort, n.bridge, n.address, base, base)
}

// inMode returns the network with another forward mode.
func (n network) inMode(mode string) string {
	before, rest, _ := strings.Cut(n.xml(libvirtPort), "<forward mode='nat'>")
	_, after, _ := strings.Cut(rest, "</forward>")
	return before + "<forward mode='" + mode + "'/>" + after
}

// libvirtPort is where libvirt's port range begins by default.
const libvirtPort = 1024
