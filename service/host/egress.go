package host

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// egress is where a clsact qdisc has the filters of what leaves. A packet to a
	// guest passes them for half of what a root qdisc takes, which has a queue and its
	// lock (Linux 6.1: 240 instructions in place of 620).
	egress = netlink.HANDLE_MIN_EGRESS
	// guestNode is our filter's number in place of filterNode in a clsact qdisc that
	// was there before us, and so stays after us.
	guestNode = 0x7dd
	// nodeMask is the part of a filter's handle that numbers it in its hash table.
	nodeMask = 0xfff
)

// ensureBeforeQueue makes sure that a bridge has our filter in its clsact qdisc. An
// ingress qdisc takes the place of it, such as libvirt's for the bandwidth of what
// guests send: helped is false then, and also while libvirt may be about to add that,
// since a network whose bridge has no place for it does not start.
func (c *csumFilters) ensureBeforeQueue(link netlink.Link, has netlink.Qdisc, starting bool) (helped bool, err error) {
	if has != nil && has.Type() != "clsact" {
		return false, nil
	}
	node := filterNode
	if has != nil {
		if ours, err := c.ours(link, egress); err != nil || ours != nil {
			return ours != nil, err
		}
		if !c.made[link.Attrs().Index] {
			node = guestNode
		}
	}
	if starting {
		return false, nil
	}
	if has == nil {
		err := netlink.QdiscAdd(clsact(link))
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return false, nil // somebody was faster, or the kernel has none
		}
		if err != nil {
			return false, fmt.Errorf("adding a clsact qdisc: %w", err)
		}
		c.made[link.Attrs().Index] = true
	}
	a := c.action
	a.control = int32(netlink.TC_ACT_UNSPEC) // other programs' filters come next
	if err := addFilter(link.Attrs().Index, egress, node, a); err != nil {
		err = fmt.Errorf("adding the filter: %w", err)
		if has == nil {
			err = errors.Join(err, dropEmpty(link))
		}
		return false, err
	}
	return true, nil
}

// removeBeforeQueue removes our filter from a clsact qdisc, and the qdisc if we made
// it and nobody else uses it.
func (c *csumFilters) removeBeforeQueue(link netlink.Link, has netlink.Qdisc) error {
	if has == nil || has.Type() != "clsact" {
		return nil
	}
	ours, err := c.ours(link, egress)
	if err != nil || ours == nil {
		return err
	}
	delete(c.made, link.Attrs().Index)
	if err := removeFilter(link, ours.Attrs().Handle); err != nil {
		return err
	}
	if ours.Attrs().Handle&nodeMask != filterNode {
		return nil
	}
	return dropEmpty(link)
}

// removeFilter removes our filter, and its hash table with it: the kernel keeps that
// while filters of other priorities have one.
func removeFilter(link netlink.Link, handle uint32) error {
	if err := deleteFilter(link.Attrs().Index, egress, handle); err != nil {
		return err
	}
	left, err := netlink.FilterList(link, egress)
	if err != nil {
		return fmt.Errorf("listing filters: %w", err)
	}
	if slices.ContainsFunc(left, func(f netlink.Filter) bool { return f.Attrs().Priority == filterPriority }) {
		return nil
	}
	if err := deleteFilter(link.Attrs().Index, egress, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// dropEmpty removes a clsact qdisc without filters.
func dropEmpty(link netlink.Link) error {
	for _, hook := range []uint32{egress, netlink.HANDLE_MIN_INGRESS} {
		filters, err := netlink.FilterList(link, hook)
		if err != nil {
			return fmt.Errorf("listing filters: %w", err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	return netlink.QdiscDel(clsact(link))
}

func clsact(link netlink.Link) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}
