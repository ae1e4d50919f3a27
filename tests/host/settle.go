package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settle waits until packets pass between the host and a peer. The kernel
// finishes links in the background: without
// this the first packet of a test is sometimes lost.
func (h *Host) settle(p *Peer, bridge string) error {
	device, up := p.port, p.port
	if bridge != "" {
		up = bridge
	}
	err := h.space.await("waiting for "+device+" to carry packets", func(nl *netlink.Handle) (string, error) {
		if link, err := nl.LinkByName(up); err != nil || link.Attrs().Flags&net.FlagUp == 0 {
			return "", err // a bridge that is down is the business of whoever brings it up
		}
		return firstWaiting(
			func() (string, error) { return linkWaits(nl, device) },
			func() (string, error) { return linkWaits(nl, up) },
			func() (string, error) { return h.portWaits(device, bridge) },
			func() (string, error) { return addressWaits(nl, up) },
		)
	})
	if err != nil {
		return err
	}
	return p.space.await("waiting for "+p.name+" to carry packets", func(nl *netlink.Handle) (string, error) {
		return firstWaiting(
			func() (string, error) { return linkWaits(nl, "eth0") },
			func() (string, error) { return addressWaits(nl, "eth0") },
		)
	})
}

// await polls until there is nothing left to wait for.
func (s *space) await(what string, waits func(*netlink.Handle) (string, error)) error {
	return s.netlink(what, func(nl *netlink.Handle) error {
		deadline := time.Now().Add(patience())
		for {
			waiting, err := waits(nl)
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				waiting, err = "a listing that nothing interrupts", nil
			}
			if err != nil || waiting == "" {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s after %s", waiting, patience())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func firstWaiting(checks ...func() (string, error)) (string, error) {
	for _, check := range checks {
		if waiting, err := check(); err != nil || waiting != "" {
			return waiting, err
		}
	}
	return "", nil
}

// linkWaits: a link has no queue before the kernel noticed its carrier.
func linkWaits(nl *netlink.Handle, device string) (string, error) {
	link, err := nl.LinkByName(device)
	if err != nil {
		return "", err
	}
	if state := link.Attrs().OperState; state != netlink.OperUp {
		return fmt.Sprintf("%s is still %s", device, state), nil
	}
	// The state is shown a moment before the queue is there, but both are made
	// under the lock that this takes.
	_, err = nl.LinkByName(device)
	return "", err
}

// portWaits: a bridge forwards to a port only after it noticed its carrier.
func (h *Host) portWaits(device, bridge string) (string, error) {
	if bridge == "" {
		return "", nil
	}
	var state []byte
	err := h.Inside(func() (err error) {
		state, err = os.ReadFile("/sys/class/net/" + device + "/brport/state")
		return err
	})
	const forwarding = "3" // BR_STATE_FORWARDING, linux/if_bridge.h
	if err == nil && strings.TrimSpace(string(state)) != forwarding {
		return fmt.Sprintf("port %s does not forward", device), nil
	}
	return "", err
}

// addressWaits: an IPv6 address is listed before it works, also without
// duplicate address detection. It works once it is in the table local, which
// comes after joining its multicast group.
func addressWaits(nl *netlink.Handle, device string) (string, error) {
	link, err := nl.LinkByName(device)
	if err != nil {
		return "", err
	}
	addrs, err := nl.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return "", err
	}
	local := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := nl.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return "", err
	}
	works := map[string]bool{}
	for _, route := range routes {
		works[route.Dst.IP.String()] = true
	}
	for _, addr := range addrs {
		if !works[addr.IP.String()] || addr.Flags&unix.IFA_F_TENTATIVE != 0 {
			return fmt.Sprintf("address %s of %s does not work yet", addr.IP, device), nil
		}
	}
	return "", nil
}
