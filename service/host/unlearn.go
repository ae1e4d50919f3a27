package host

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// hasReceived reports whether an advertisement ever arrived on the link, so that a
// thousand new bridges do not cost as many listings of all routes.
func (a *Advertisements) hasReceived(link watch.Link) bool {
	data, err := os.ReadFile(filepath.Join(a.cfg.Proc, "thread-self/net/dev_snmp6", link.Name))
	if err != nil {
		return true // unknown
	}
	for line := range bytes.Lines(data) {
		if fields := bytes.Fields(line); len(fields) == 2 && string(fields[0]) == "Icmp6InRouterAdvertisements" {
			return string(fields[1]) != "0"
		}
	}
	return true
}

// unlearn removes what the kernel learned on a link from router advertisements:
// their default routes and prefixes, and the addresses that it derived. It leaves
// all other routes and addresses alone.
func (a *Advertisements) unlearn(link watch.Link) error {
	routes, err := learned(filepath.Join(a.cfg.Proc, "thread-self/net/ipv6_route"), link.Name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no IPv6
	}
	if err != nil {
		return fmt.Errorf("looking for routes that %s's guests advertised: %w", link.Name, err)
	}
	own, given, err := addressesOf(link)
	if err != nil {
		return fmt.Errorf("looking at the addresses of %s: %w", link.Name, err)
	}
	var errs []error
	for _, r := range routes {
		// An address of the host's own may rest on a prefix that was there first.
		if r.Gw == nil && slices.ContainsFunc(own, r.Dst.Contains) {
			continue
		}
		r.LinkIndex = link.Index
		errs = append(errs, ignoreGone(netlink.RouteDel(&r)))
	}
	for _, addr := range given {
		errs = append(errs, ignoreGone(netlink.AddrDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: link.Index}}, &addr)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forgetting what guests on %s advertised: %w", link.Name, err)
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// learned returns the routes through an interface that have the kernel's flag of an
// advertisement. Netlink does not show it, and marks those of programs such as
// NetworkManager in the same way.
func learned(path, name string) (routes []netlink.Route, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const rtfAddrconf = 0x40000 // linux/ipv6_route.h
	for line := range bytes.Lines(data) {
		// destination, length, source, length, gateway, metric, references, uses, flags, interface
		fields := bytes.Fields(line)
		if len(fields) != 10 || string(fields[9]) != name {
			continue
		}
		flags, err := strconv.ParseUint(string(fields[8]), 16, 64)
		if err != nil || flags&rtfAddrconf == 0 {
			continue
		}
		if r, ok := parseRoute(fields); ok {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

func parseRoute(fields [][]byte) (r netlink.Route, ok bool) {
	destination, err := hex.DecodeString(string(fields[0]))
	length, err1 := strconv.ParseUint(string(fields[1]), 16, 8)
	gateway, err2 := hex.DecodeString(string(fields[4]))
	metric, err3 := strconv.ParseUint(string(fields[5]), 16, 32)
	if errors.Join(err, err1, err2, err3) != nil || len(destination) != net.IPv6len || len(gateway) != net.IPv6len || length > 128 {
		return r, false
	}
	r = netlink.Route{Family: unix.AF_INET6, Priority: int(metric),
		Dst: &net.IPNet{IP: destination, Mask: net.CIDRMask(int(length), 128)}}
	if gw := net.IP(gateway); !gw.IsUnspecified() {
		r.Gw = gw
	}
	return r, true
}

// addressesOf returns an interface's own IPv6 addresses, and those that the kernel
// derived from an advertisement.
func addressesOf(link watch.Link) (own []net.IP, given []netlink.Addr, err error) {
	all, err := netlink.AddrList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: link.Index}}, netlink.FAMILY_V6)
	for _, addr := range all {
		switch {
		case addr.Flags&unix.IFA_F_PERMANENT == 0 && addr.Flags&unix.IFA_F_MANAGETEMPADDR != 0:
			given = append(given, addr)
		case !addr.IP.IsLinkLocalUnicast():
			own = append(own, addr.IP)
		}
	}
	return own, given, err
}
