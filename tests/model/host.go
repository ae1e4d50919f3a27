package model

import (
	"fmt"
	"net/netip"
	"slices"
)

// Rules are whose a host has.
type Rules string

// The service's, with either of its backends, or libvirt's own.
const (
	NFTables Rules = "nftables"
	IPTables Rules = "iptables"
	Libvirt  Rules = "libvirt"
)

// Host is a host with networks, as far as it decides on packets.
type Host struct {
	Networks        []Network
	Rules           Rules
	BridgeNetfilter bool

	libvirt, allDevices, withRoutes *chains
	byBridge                        map[string]*Network
}

// NewHost returns a host with networks.
func NewHost(networks []Network, rules Rules) *Host {
	h := &Host{Networks: networks, Rules: rules, byBridge: map[string]*Network{}}
	for i := range networks {
		h.byBridge[networks[i].Bridge] = &networks[i]
	}
	h.libvirt = rulesOf(asLibvirtHas(networks))
	h.allDevices = rulesOf(networks)
	h.withRoutes = rulesOf(routesAsSubnets(networks))
	return h
}

// Verdict returns what becomes of a packet, and why: libvirt's verdict, and each
// difference that changed it.
func (h *Host) Verdict(p Packet) (v Verdict, why []string) {
	if p.Bridged && !h.BridgeNetfilter {
		return Verdict{Fate: Passes}, []string{"no rule sees it: br_netfilter is off"}
	}
	v = h.libvirt.verdict(p)
	why = []string{fmt.Sprintf("libvirt: %s", v)}
	for _, d := range h.applicable() {
		after := d.apply(h, p, v)
		if after != v {
			why = append(why, fmt.Sprintf("%s: %s", d.name, after))
		}
		v = after
	}
	return v, why
}

// applicable returns which of the differences the host's rules have.
func (h *Host) applicable() []difference {
	return slices.DeleteFunc(slices.Clone(differences), func(d difference) bool {
		return h.Rules == Libvirt || d.nftablesOnly && h.Rules != NFTables
	})
}

// Differences returns the names of the differences in the table that may change a
// verdict. The step of each in what Verdict returns begins with its name.
func (h *Host) Differences() (names []string) {
	for _, d := range h.applicable() {
		names = append(names, d.name)
	}
	return names
}

// at returns the network on a bridge; nil for none.
func (h *Host) at(bridge string) *Network { return h.byBridge[bridge] }

// governed returns the network on a bridge if libvirt has rules for it; nil for
// none.
func (h *Host) governed(bridge string) *Network {
	if n := h.at(bridge); n != nil && n.Mode != Open {
		return n
	}
	return nil
}

// owner returns the network that an address belongs to; nil for none.
func (h *Host) owner(a netip.Addr) *Network {
	for i := range h.Networks {
		n := &h.Networks[i]
		if anyContains(n.own(a.Is6()), a) || anyContains(n.behind(a.Is6()), a) {
			return n
		}
	}
	return nil
}

// Involved returns the networks that a packet may have to do with.
func (h *Host) Involved(p Packet) (all []*Network) {
	for i := range h.Networks {
		n := &h.Networks[i]
		if n.Bridge == p.In || n.Bridge == p.Out || n == h.owner(p.From) || n == h.owner(p.To) {
			all = append(all, n)
		}
	}
	return all
}
