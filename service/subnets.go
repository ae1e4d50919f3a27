package service

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// contested returns the subnets that two links must not both have.
func contested(n network.Network) []netip.Prefix {
	return slices.DeleteFunc(n.Subnets(), network.OfOneLink)
}

// hostSubnet is a subnet of one of the host's own interfaces.
type hostSubnet struct {
	prefix netip.Prefix
	index  int // of the interface
	link   string
}

// hostSubnets returns the subnets of the host's interfaces but governed bridges:
// what those have belongs to a network, or a guest has announced it.
func (v *hostView) hostSubnets() (out []hostSubnet) {
	governed := map[int]bool{}
	for _, m := range v.networks.All() {
		governed[m.bridge.index] = true
	}
	seen := map[hostSubnet]bool{}
	for _, a := range v.hostLinks.Addresses() {
		p := a.Prefix
		if a.Peer.IsValid() {
			p = a.Peer
		}
		if p = p.Masked(); governed[a.Index] || p.Bits() == 0 || network.OfOneLink(p) {
			continue
		}
		h := hostSubnet{prefix: p, index: a.Index}
		if l, ok := v.hostLinks.LinkByIndex(a.Index); ok {
			h.link = l.Name
		}
		if !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	return out
}

// beside returns the subnets of interfaces other than the network's bridge.
func beside(all []hostSubnet, n network.Network, b bridge) []hostSubnet {
	return slices.DeleteFunc(slices.Clone(all), func(h hostSubnet) bool {
		return h.index == b.index || h.link == n.Bridge
	})
}

// admitOnHost refuses a network that has the subnet of another interface, as
// libvirt does: which of the two a packet is for would be a matter of chance.
func (v *hostView) admitOnHost(n network.Network, b bridge) error {
	mine := contested(n)
	for _, h := range beside(v.hostSubnets(), n, b) {
		if slices.Contains(mine, h.prefix) {
			return errorf(SubnetOverlap, "subnet %s is that of the host's interface %s too: choose another subnet", h.prefix, h.link)
		}
	}
	return nil
}

// subnetFindings returns what a network's subnets have to do with those of the
// host's interfaces. The route to the longer prefix wins, so that both work, but
// for the addresses that are in both.
func subnetFindings(all []hostSubnet, m *managed) (fs []finding.Finding) {
	mine := contested(m.net)
	for _, h := range beside(all, m.net, m.bridge) {
		for _, p := range mine {
			if p.Overlaps(h.prefix) {
				fs = append(fs, subnetFinding(p, h))
			}
		}
	}
	return fs
}

func subnetFinding(p netip.Prefix, h hostSubnet) finding.Finding {
	switch {
	case p == h.prefix:
		return finding.Finding{
			ID:      finding.SubnetOnHost,
			Summary: fmt.Sprintf("interface %s has the network's subnet %s too", h.link, p),
			Remedy:  fmt.Sprintf("give the network another subnet, or take the address from %s", h.link),
		}
	case p.Bits() > h.prefix.Bits():
		return finding.Finding{
			ID:      finding.SubnetInsideUplink,
			Summary: fmt.Sprintf("the network's subnet %s lies inside %s of interface %s", p, h.prefix, h.link),
			Remedy:  fmt.Sprintf("where others on %s's link shall reach guests, route the subnet to this host, or let it answer for them (%s)", h.link, proxyOf(p)),
		}
	}
	return finding.Finding{
		ID:      finding.SubnetAroundUplink,
		Summary: fmt.Sprintf("the network's subnet %s lies around %s of interface %s", p, h.prefix, h.link),
		Remedy:  fmt.Sprintf("give guests no address of %s, which the host reaches over %s", h.prefix, h.link),
	}
}

// proxyOf names the kernel's means to answer for another link's addresses.
func proxyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "proxy_arp"
	}
	return "proxy_ndp"
}

// noteSubnets compares networks that are in force with the host's interfaces,
// which nothing tells when their addresses change. The caller holds the change
// lock.
func (v *hostView) noteSubnets(all []*managed) {
	hosts := v.hostSubnets()
	for _, m := range all {
		v.networks.note(m.net.Name, fromSubnets, subnetFindings(hosts, m)...)
	}
}
