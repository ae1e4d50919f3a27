package host

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The uplinks' addresses: of the host, and of the peer that is behind.
var (
	wan4 = uplink{"wan0", "internet", netip.MustParsePrefix("203.0.113.2/24"), netip.MustParsePrefix("203.0.113.1/24")}
	wan6 = uplink{"wan0", "internet", netip.MustParsePrefix("2001:db8:ffff::2/64"), netip.MustParsePrefix("2001:db8:ffff::1/64")}
	lan4 = uplink{"lan0", "lan", netip.MustParsePrefix("198.51.100.2/24"), netip.MustParsePrefix("198.51.100.1/24")}
	lan6 = uplink{"lan0", "lan", netip.MustParsePrefix("2001:db8:eeee::2/64"), netip.MustParsePrefix("2001:db8:eeee::1/64")}
)

type uplink struct {
	device, peer string
	host, other  netip.Prefix
}

// Bridge makes a bridge on the host, up, without STP, with the given addresses
// (CIDR, usable at once).
func (h *Host) Bridge(name string, addrs ...string) {
	h.fail(h.addBridge(name, addrs))
}

func (h *Host) addBridge(name string, addrs []string) error {
	prefixes, err := parsePrefixes(addrs)
	if err != nil {
		return fmt.Errorf("making bridge %s: %w", name, err)
	}
	err = h.space.netlink("making bridge "+name, func(nl *netlink.Handle) error {
		// No STP: a port forwards at once instead of after 30 s.
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := nl.LinkAdd(link); err != nil {
			return err
		}
		return raise(nl, name, prefixes)
	})
	if err != nil {
		return err
	}
	return h.space.await("making bridge "+name, func(nl *netlink.Handle) (string, error) { return addressWaits(nl, name) })
}

// Guest makes a machine on a bridge of the host: eth0 with the given addresses
// (CIDR), default routes to the bridge's addresses in the same subnets, and
// routes to these subnets on the uplinks' peers. Without addresses it is up and
// may ask for one by DHCP.
func (h *Host) Guest(bridge, name string, addrs ...string) *Peer {
	p, err := h.addGuest(bridge, name, addrs)
	h.fail(err)
	return p
}

func (h *Host) addGuest(bridge, name string, addrs []string) (*Peer, error) {
	prefixes, err := parsePrefixes(addrs)
	if err != nil {
		return nil, fmt.Errorf("making guest %s: %w", name, err)
	}
	p, err := h.newPeer(name, portName(name), prefixes)
	if err != nil {
		return nil, err
	}
	if err := h.addVeth(p, bridge); err != nil {
		return nil, err
	}
	gateways, err := h.addresses(bridge)
	if err != nil {
		return nil, err
	}
	if err := p.setUp(gateways); err != nil {
		return nil, err
	}
	if err := h.settle(p, bridge); err != nil {
		return nil, err
	}
	return p, h.routeBack(masked(prefixes))
}

// setUp adds a peer's addresses, and default routes to the gateways that are
// in its subnets.
func (p *Peer) setUp(gateways []netip.Prefix) error {
	return p.space.netlink("setting up "+p.name, func(nl *netlink.Handle) error {
		if err := raise(nl, "eth0", p.addrs); err != nil {
			return err
		}
		for _, gateway := range gateways {
			for _, subnet := range masked(p.addrs) {
				if gateway.Masked() == subnet {
					if err := addRoute(nl, "eth0", netip.Prefix{}, gateway.Addr()); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// portName returns the name of a guest's port in its bridge.
func portName(guest string) string {
	name := "v-" + guest
	if len(name) >= unix.IFNAMSIZ {
		name = name[:unix.IFNAMSIZ-1]
	}
	return name
}

// Internet is the peer behind the host's uplink wan0, where its default routes
// go: 203.0.113.1 and 2001:db8:ffff::1, with the host at .2 and ::2. It knows
// the way back to every guest subnet, so that a test sees untranslated packets.
func (h *Host) Internet() *Peer {
	p, err := h.addUplink(wan4, wan6)
	h.fail(err)
	return p
}

// Lan is the peer behind the host's second uplink, lan0: 198.51.100.1 and
// 2001:db8:eeee::1, with the host at .2 and ::2.
func (h *Host) Lan() *Peer {
	p, err := h.addUplink(lan4, lan6)
	h.fail(err)
	return p
}

func (h *Host) addUplink(v4, v6 uplink) (*Peer, error) {
	h.mu.Lock()
	p, ok := h.peers[v4.peer]
	subnets := append([]netip.Prefix(nil), h.subnets...)
	h.mu.Unlock()
	if ok {
		return p, nil
	}
	p, err := h.newPeer(v4.peer, v4.device, []netip.Prefix{v4.other, v6.other})
	if err != nil {
		return nil, err
	}
	if err := h.addVeth(p, ""); err != nil {
		return nil, err
	}
	if err := p.setUp(nil); err != nil {
		return nil, err
	}
	err = h.space.netlink("setting up uplink "+p.port, func(nl *netlink.Handle) error {
		if err := raise(nl, p.port, []netip.Prefix{v4.host, v6.host}); err != nil {
			return err
		}
		if p.port != wan4.device {
			return nil
		}
		if err := addRoute(nl, p.port, netip.Prefix{}, v4.other.Addr()); err != nil {
			return err
		}
		return addRoute(nl, p.port, netip.Prefix{}, v6.other.Addr())
	})
	if err != nil {
		return nil, err
	}
	if err := h.settle(p, ""); err != nil {
		return nil, err
	}
	return p, p.routesVia(subnets)
}

// RouteBack adds routes to subnets behind the host to the uplinks' peers, also to
// later ones. Guest does so for its own.
func (h *Host) RouteBack(subnets ...string) {
	prefixes, err := parsePrefixes(subnets)
	if err == nil {
		err = h.routeBack(masked(prefixes))
	}
	h.fail(err)
}

func (h *Host) routeBack(subnets []netip.Prefix) error {
	h.mu.Lock()
	h.subnets = append(h.subnets, subnets...)
	var uplinks []*Peer
	for _, name := range []string{wan4.peer, lan4.peer} {
		if p, ok := h.peers[name]; ok {
			uplinks = append(uplinks, p)
		}
	}
	h.mu.Unlock()
	for _, p := range uplinks {
		if err := p.routesVia(subnets); err != nil {
			return err
		}
	}
	return nil
}

// routesVia adds routes through the host to an uplink's peer.
func (p *Peer) routesVia(subnets []netip.Prefix) error {
	return p.space.netlink("routing back from "+p.name, func(nl *netlink.Handle) error {
		for _, subnet := range subnets {
			for _, u := range []uplink{wan4, wan6, lan4, lan6} {
				if u.peer == p.name && u.host.Addr().Is4() == subnet.Addr().Is4() {
					if err := addRoute(nl, "eth0", subnet, u.host.Addr()); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}
