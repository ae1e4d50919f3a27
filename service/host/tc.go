package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// filterPriority is where libvirt has its filters too.
	filterPriority = 2
	// filterNode distinguishes our filter from others of that priority. libvirt lets
	// the kernel number its own, from 0x800 on, or uses decimal numbers that tc
	// reads as hexadecimal ones: none of those has a letter in it.
	filterNode = 0x7dc
	// directQueue marks a qdisc that we made. libvirt's have the kernel's default,
	// the bridge's txqueuelen of 1000.
	directQueue = 1068

	rootHandle = 1 << 16 // "1:"
)

// csumFilters fills in checksums with the tc action csum, as libvirt does, in a
// filter before the bridge's queue, see egress.go. Where that has no place it is where
// libvirt has its own: in a root qdisc htb "1:", which libvirt's bandwidth settings
// use too.
type csumFilters struct {
	action        action
	probed, works bool
	made          map[int]bool // interfaces whose clsact qdisc we made
}

func newCsumFilters() *csumFilters {
	return &csumFilters{action: csum(), made: make(map[int]bool)}
}

// fill ensures filters on exactly these bridges and returns those where it cannot.
func (c *csumFilters) fill(ctx context.Context, bridges map[string]DHCP) (left map[string]string, err error) {
	left = make(map[string]string)
	works, err := c.probe()
	if err != nil {
		return nil, err
	}
	if !works {
		for bridge, served := range bridges {
			left[bridge] = served.Network
		}
		return left, nil
	}
	all, err := qdiscs()
	if err != nil {
		return nil, err
	}
	wanted := make(map[int]bool)
	for bridge, served := range bridges {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		link, err := netlink.LinkByName(bridge)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue // it was just deleted, and its filters with it
		}
		if err != nil {
			return nil, fmt.Errorf("looking for bridge %s: %w", bridge, err)
		}
		if served.Index != 0 && served.Index != link.Attrs().Index {
			continue // made anew, and libvirt may be starting it
		}
		wanted[link.Attrs().Index] = true
		helped, err := c.help(link, all[link.Attrs().Index], served)
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("helping bridge %s: %w", bridge, err)
		}
		if !helped {
			left[bridge] = served.Network
		}
	}
	return left, c.removeOthers(all, wanted)
}

// help makes sure that a bridge has our filter in one of its places, and in one only.
func (c *csumFilters) help(link netlink.Link, has disciplines, served DHCP) (helped bool, err error) {
	if helped, err := c.ensureBeforeQueue(link, has.clsact, served.Starting); err != nil {
		return false, err
	} else if helped {
		return true, c.removeFromQueue(link, has.root)
	}
	return c.ensureInQueue(link, has.root)
}

// probe tests whether the kernel has the csum action: it creates one without a
// filter and deletes it. The kernel loads its module, and no bridge is affected.
func (c *csumFilters) probe() (works bool, err error) {
	if c.probed {
		return c.works, nil
	}
	const index = 0x76667764 // fixed, so that one left by a crash is deleted too
	tab := nl.NewRtAttr(nl.TCA_ACT_TAB, nil)
	c.action.encode(tab.AddRtAttr(1, nil), index)
	err = request(unix.RTM_NEWACTION, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tab)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		c.probed = true
		return false, nil
	case err != nil && !errors.Is(err, unix.EEXIST):
		return false, fmt.Errorf("trying the tc action %s: %w", c.action.kind, err)
	}
	tab = nl.NewRtAttr(nl.TCA_ACT_TAB, nil)
	one := tab.AddRtAttr(1, nil)
	one.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated(c.action.kind))
	one.AddRtAttr(nl.TCA_ACT_INDEX, nl.Uint32Attr(index))
	if err := request(unix.RTM_DELACTION, 0, tab); err != nil {
		return false, fmt.Errorf("deleting the tc action that was made to try it: %w", err)
	}
	c.probed, c.works = true, true
	return true, nil
}

func request(kind, flags int, attr *nl.RtAttr) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.AddData(tcaMsg{})
	req.AddData(attr)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// tcaMsg is struct tcamsg, which begins messages about actions: no family.
type tcaMsg struct{}

func (tcaMsg) Len() int          { return 4 }
func (tcaMsg) Serialize() []byte { return make([]byte, 4) }

// disciplines are the places for filters that an interface has. Its clsact qdisc, or
// the ingress qdisc that takes the same place, is nil without one.
type disciplines struct{ root, clsact netlink.Qdisc }

// qdiscs returns those of all interfaces.
func qdiscs() (map[int]disciplines, error) {
	list, err := netlink.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("listing queueing disciplines: %w", err)
	}
	all := make(map[int]disciplines)
	for _, q := range list {
		has := all[q.Attrs().LinkIndex]
		switch q.Attrs().Parent {
		case netlink.HANDLE_ROOT:
			has.root = q
		case netlink.HANDLE_CLSACT:
			has.clsact = q
		}
		all[q.Attrs().LinkIndex] = has
	}
	return all, nil
}

// ensureInQueue makes sure that a bridge has our filter in its root qdisc. It does not
// replace one of the administrator's choice: helped is false then.
func (c *csumFilters) ensureInQueue(link netlink.Link, root netlink.Qdisc) (helped bool, err error) {
	switch {
	case isHTB(root):
		if ours, err := c.ours(link, rootHandle); err != nil || ours != nil {
			return ours != nil, err
		}
	case root != nil && root.Attrs().Handle != 0: // 0 is the kernel's default
		return false, nil
	default:
		if err := netlink.QdiscAdd(htb(link)); err != nil {
			return false, fmt.Errorf("adding the root qdisc: %w", err)
		}
	}
	if err := addFilter(link.Attrs().Index, rootHandle, filterNode, c.action); err != nil {
		return false, errors.Join(fmt.Errorf("adding the filter: %w", err), dropUnused(link))
	}
	return true, nil
}

// removeOthers removes our filter from bridges that are not wanted.
func (c *csumFilters) removeOthers(all map[int]disciplines, wanted map[int]bool) error {
	var errs []error
	for index, has := range all {
		if wanted[index] {
			continue
		}
		link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
		err := errors.Join(c.removeBeforeQueue(link, has.clsact), c.removeFromQueue(link, has.root))
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("removing the filter of interface %d: %w", index, err))
		}
	}
	return errors.Join(errs...)
}

// removeFromQueue removes our filter from a root qdisc, and the qdisc if we made it
// and nobody else uses it.
func (c *csumFilters) removeFromQueue(link netlink.Link, root netlink.Qdisc) error {
	if !isHTB(root) {
		return nil
	}
	ours, err := c.ours(link, rootHandle)
	if err == nil && ours != nil {
		err = deleteFilter(link.Attrs().Index, rootHandle, ours.Attrs().Handle)
	}
	if err == nil && hasOurMark(root) {
		err = dropUnused(link)
	}
	return err
}

// dropUnused removes a root qdisc that we made, unless it is in use.
func dropUnused(link netlink.Link) error {
	all, err := qdiscs()
	if err != nil || !hasOurMark(all[link.Attrs().Index].root) {
		return err
	}
	filters, err := netlink.FilterList(link, rootHandle)
	if err != nil {
		return fmt.Errorf("listing filters: %w", err)
	}
	classes, err := netlink.ClassList(link, 0)
	if err != nil {
		return fmt.Errorf("listing classes: %w", err)
	}
	if len(filters) > 0 || len(classes) > 0 {
		return nil
	}
	return netlink.QdiscDel(htb(link))
}

// ours returns our filter of an interface's qdisc, or nil.
func (c *csumFilters) ours(link netlink.Link, parent uint32) (netlink.Filter, error) {
	filters, err := netlink.FilterList(link, parent)
	if err != nil {
		return nil, fmt.Errorf("listing filters: %w", err)
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if ok && u.Priority == filterPriority && isOurNode(u.Handle&nodeMask) &&
			len(u.Actions) == 1 && u.Actions[0].Type() == c.action.kind {
			return f, nil
		}
	}
	return nil, nil
}

func isOurNode(node uint32) bool { return node == filterNode || node == guestNode }

// htb returns what libvirt makes, with a default class 2 that does not exist, and
// our mark.
func htb(link netlink.Link) *netlink.Htb {
	q := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: rootHandle, Parent: netlink.HANDLE_ROOT})
	length := uint32(directQueue)
	q.Defcls, q.DirectQlen = 2, &length
	return q
}

func isHTB(root netlink.Qdisc) bool {
	return root != nil && root.Type() == "htb" && root.Attrs().Handle == rootHandle
}

func hasOurMark(root netlink.Qdisc) bool {
	q, ok := root.(*netlink.Htb)
	return ok && isHTB(root) && q.DirectQlen != nil && *q.DirectQlen == directQueue
}
