package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// end is one end of a flow: a machine beside the host.
type end struct {
	*host.Peer
	gateway string // the host's device that the machine sends its frames to
}

func guestEnd(p *host.Peer, bridge string) end { return end{p, bridge} }

func uplinkEnd(p *host.Peer) end { return end{p, p.Port()} }

func (e end) addr() netip.Addr {
	a, _ := e.Addr(false)
	return a
}

// flow is one UDP connection through the host, to which packets of that name belong.
type flow struct {
	name     string
	from, to end
}

// flowPort is where the far end listens.
const flowPort = 9100

// opened is a flow that conntrack, where it is, has seen in both directions.
type opened struct {
	flow
	remote    netip.AddrPort // the far end's address
	local     netip.AddrPort // the near end's own address
	seen      netip.AddrPort // the same, as the far end sees it
	near, far *net.UDPConn
}

// open opens the flow from a port of its near end.
func (f flow) open(port uint16) (o opened, err error) {
	o = opened{flow: f, local: netip.AddrPortFrom(f.from.addr(), port), remote: netip.AddrPortFrom(f.to.addr(), flowPort)}
	if o.near, err = f.from.listen(o.local); err != nil {
		return o, err
	}
	if o.far, err = f.to.listen(o.remote); err != nil {
		o.near.Close()
		return o, err
	}
	if err := o.exchange(); err != nil {
		o.close()
		return o, fmt.Errorf("opening a flow from %s to %s: %w", o.local, o.remote, err)
	}
	return o, nil
}

func (o *opened) close() {
	o.near.Close()
	o.far.Close()
}

// exchange sends several datagrams and answers each, after which conntrack keeps the
// flow for minutes.
func (o *opened) exchange() error {
	for range 4 {
		_, err := o.near.WriteToUDPAddrPort([]byte("out"), o.remote)
		if err != nil {
			return err
		}
		if o.seen, err = receive(o.far); err != nil {
			return err
		}
		if _, err := o.far.WriteToUDPAddrPort([]byte("in"), o.seen); err != nil {
			return err
		}
		if _, err := receive(o.near); err != nil {
			return fmt.Errorf("back to %s: %w", o.seen, err)
		}
	}
	return nil
}

// listen opens a socket of the end's.
func (e end) listen(at netip.AddrPort) (conn *net.UDPConn, err error) {
	err = e.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", e.Name(), err)
	}
	return conn, nil
}

func receive(conn *net.UDPConn) (netip.AddrPort, error) {
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return netip.AddrPort{}, err
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 64))
	return from, err
}

// hardwareAddr returns that of a node's device.
func hardwareAddr(at host.Node, device string) (addr net.HardwareAddr, err error) {
	err = at.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("finding %s: %w", device, err)
		}
		if addr = link.Attrs().HardwareAddr; len(addr) == 0 {
			return errors.New(device + " has no hardware address")
		}
		return nil
	})
	return addr, err
}
