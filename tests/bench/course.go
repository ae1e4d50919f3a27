package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	pktgenPackets = 30000
	pktgenRuns    = 3
	pktgenLosses  = 12 // runs that may be none before a measurement fails
)

// course is a host with what the packets pass.
type course struct {
	*bed
	// The flows: of two guests, and of machines behind interfaces and bridges
	// that no network governs.
	nat, routed, plain, bridged flow
	port                        uint16        // of the last flow
	share                       time.Duration // of what is not the host's, for a packet
}

// The guests' networks, and the bridges of others.
var (
	natNetwork, routedNetwork = numbered(0), numbered(1)
	otherBridges              = [2]string{"other0", "other1"}
)

func newCourse(b *bed) (*course, error) {
	if _, err := b.Run("sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		return nil, err
	}
	if err := b.addBridges(0, 2); err != nil {
		return nil, err
	}
	b.Bridge(otherBridges[0], "172.17.0.1/24")
	b.Bridge(otherBridges[1], "172.18.0.1/24")
	outside, lan := uplinkEnd(b.Internet()), uplinkEnd(b.Lan())
	b.RouteBack("198.51.100.0/24") // from one uplink's peer to the other
	if _, err := lan.Run("ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.2"); err != nil {
		return nil, err
	}
	guest := func(name, bridge, addr string) end { return guestEnd(b.Guest(bridge, name, addr), bridge) }
	c := &course{
		bed:     b,
		nat:     flow{"NAT", guest("nat", natNetwork.bridge, natNetwork.guest()), outside},
		routed:  flow{"routed", guest("routed", routedNetwork.bridge, routedNetwork.guest()), outside},
		plain:   flow{"between interfaces without a network", lan, outside},
		bridged: flow{"between bridges without a network", guest("one", otherBridges[0], "172.17.0.2/24"), guest("two", otherBridges[1], "172.18.0.2/24")},
		port:    20000,
	}
	for _, e := range []end{c.nat.from, c.routed.from, c.bridged.from, c.bridged.to, outside, lan} {
		if err := c.addSink(e); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// addSink ends the packets of the measurement where they arrive. The host knows the
// end's hardware address for good: as long as it finds out whether the one that it
// knows still holds, a packet takes 280 instructions more.
func (c *course) addSink(e end) error {
	if _, err := e.RunInput(sinkRules("eth0"), "nft", "-f", "-"); err != nil {
		return err
	}
	addr, err := hardwareAddr(e, "eth0")
	if err != nil {
		return err
	}
	_, err = c.Run("ip", "neigh", "replace", e.addr().String(), "lladdr", addr.String(), "dev", e.gateway, "nud", "permanent")
	return err
}

// calibrate measures what is no part of a packet's way through the host: packets
// that are dropped where they enter it.
func (c *course) calibrate() error {
	outside := c.nat.to
	if _, err := c.RunInput(sinkRules(outside.gateway), "nft", "-f", "-"); err != nil {
		return err
	}
	at := netip.AddrPortFrom(outside.addr(), flowPort)
	share, err := c.least(outside, at, at, c.NetNS())
	if err != nil {
		return err
	}
	c.share = share
	_, err = c.Run("nft", "delete", "table", "netdev", "sink")
	return err
}

// cost is what a packet takes, in instructions.
type cost struct{ out, in int }

// costs are those of flows, by their names.
type costs map[string]cost

// measure measures flows in both directions. Each is opened from a port of its own:
// conntrack knows nothing of it from earlier rules.
func (c *course) measure(flows ...flow) (costs, error) {
	all := costs{}
	for _, f := range flows {
		c.port++
		o, err := f.open(c.port)
		if err != nil {
			return nil, err
		}
		out, err := c.least(f.from, o.local, o.remote, f.to.NetNS())
		if err != nil {
			return nil, err
		}
		in, err := c.least(f.to, o.remote, o.seen, f.from.NetNS())
		if err != nil {
			return nil, err
		}
		o.close()
		all[f.name] = cost{int((out - c.share).Nanoseconds()), int((in - c.share).Nanoseconds())}
	}
	return all, nil
}

// least returns what a packet takes from an end to the sink of a network namespace:
// the least of several runs.
func (c *course) least(from end, src, dst netip.AddrPort, sink string) (least time.Duration, err error) {
	gateway, err := hardwareAddr(c, from.gateway)
	if err != nil {
		return 0, err
	}
	p := packets{from: from.Peer, gateway: gateway, src: src, dst: dst, count: pktgenPackets}
	lost := 0
	for runs := 0; runs < pktgenRuns; {
		each, err := p.sendTo(sink)
		if errors.Is(err, errElsewhere) && lost < pktgenLosses {
			lost++
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("sending from %s to %s: %w", src, dst, err)
		}
		runs++
		if least == 0 || each < least {
			least = each
		}
	}
	return least, nil
}
