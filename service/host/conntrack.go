package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

const (
	// ctGetStats is IPCTNL_MSG_CT_GET_STATS, linux/netfilter/nfnetlink_conntrack.h.
	ctGetStats = 5
	// ctaStatusMask is CTA_STATUS_MASK; kernels without it list all connections.
	ctaStatusMask = 26
	// ipsSrcNAT is IPS_SRC_NAT, linux/netfilter/nf_conntrack_common.h.
	ipsSrcNAT = 1 << 4

	// dumpTries bounds the attempts at a dump that the kernel reports as
	// interrupted.
	dumpTries = 3

	answerTimeout = 5 * time.Second
)

// Guests are a network and its bridge, by interface index; 0 while there is none.
type Guests struct {
	Network network.Network
	Index   int
}

// Retranslate deletes the connections of the networks' guests that began without
// the translation that they would get now, so that the next packet of each begins
// it again, translated. An entry of conntrack does not have the interface that its
// packets arrived on, and others may use the same addresses: it is deleted only if
// its source is known to be at the network's bridge. own returns the host's own
// addresses: traffic to them is not forwarded, and so not translated either. It is
// called only if there is something to compare.
func Retranslate(ctx context.Context, nets []Guests, own func() []netip.Addr) (deleted int, err error) {
	if n, err := connections(); err != nil || n == 0 {
		return 0, err
	}
	m := newMatcher(nets, own)
	if len(m.subnets) == 0 {
		return 0, nil
	}
	for range dumpTries {
		stale, err := untranslated(ctx, m)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return deleted, err
		}
		stale, unsure := m.proven(stale)
		if unsure != nil {
			return deleted, unsure
		}
		n, failed := deleteAll(ctx, stale)
		deleted += n
		if err == nil || failed != nil {
			return deleted, failed
		}
	}
	return deleted, netlink.ErrDumpInterrupted
}

func deleteAll(ctx context.Context, stale []connection) (deleted int, err error) {
	if len(stale) == 0 {
		return 0, nil
	}
	// One socket for all: there may be hundreds of thousands.
	sock, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("opening a socket to connection tracking: %w", err)
	}
	defer sock.Close()
	limit := unix.NsecToTimeval(int64(answerTimeout))
	_ = sock.SetSendTimeout(&limit)    // cannot fail: it sets a field
	_ = sock.SetReceiveTimeout(&limit) // likewise
	shared := map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: sock}}
	for _, c := range stale {
		if err := ctx.Err(); err != nil {
			return deleted, fmt.Errorf("deleting untranslated connections: %w", err)
		}
		gone, err := c.delete(shared)
		if err != nil {
			return deleted, err
		}
		if gone {
			deleted++
		}
	}
	return deleted, nil
}

// connections returns the number of the namespace's connections. A dump walks the
// kernel's whole hash table, which holds those of all namespaces, so it is worth
// asking first.
func connections() (n uint32, err error) {
	// The answer is marked as multi-part, though nothing follows: only the
	// acknowledgement ends it.
	req := ctRequest(ctGetStats, unix.NLM_F_ACK, unix.AF_UNSPEC)
	err = req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(b []byte) bool {
		const entries = 1 // CTA_STATS_GLOBAL_ENTRIES
		if body := nfnl.Body(b); body.Has(entries) {
			n = body.Uint32(entries)
		}
		return true
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // the kernel tracks nothing
	}
	if err != nil {
		return 0, fmt.Errorf("counting connections: %w", err)
	}
	return n, nil
}

// untranslated returns the connections that match, of both families in one dump.
func untranslated(ctx context.Context, m *matcher) ([]connection, error) {
	req := ctRequest(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, m.family())
	// Most connections of a busy host are translated: the kernel leaves those out.
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, nl.BEUint32Attr(0)))
	req.AddData(nl.NewRtAttr(ctaStatusMask, nl.BEUint32Attr(ipsSrcNAT)))
	var found []connection
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(b []byte) bool {
		if c, ok := parseConnection(nfnl.Body(b)); ok && m.matches(c) {
			found = append(found, c.clone())
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return found, fmt.Errorf("listing connections: %w", err)
	}
	return found, nil
}

// delete deletes this connection; the ID protects later ones between the same ends.
// gone is false if it has ended meanwhile.
func (c connection) delete(sockets map[int]*nl.SocketHandle) (gone bool, err error) {
	family := uint8(unix.AF_INET)
	if c.from.Is6() {
		family = unix.AF_INET6
	}
	req := ctRequest(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, family)
	req.Sockets = sockets
	req.AddData(nl.NewRtAttr(nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, c.original))
	req.AddData(nl.NewRtAttr(nl.CTA_ID, c.id))
	_, err = req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("deleting the untranslated connection of %s with %s: %w", c.from, c.to, err)
	}
	return true, nil
}

func ctRequest(operation, flags int, family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}
