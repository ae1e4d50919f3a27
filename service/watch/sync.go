package watch

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// waiter is one call of Sync. It is released by the answer to its marker, or when a
// later session is complete.
type waiter struct {
	session  int
	answered bool
	done     chan struct{}
}

// Sync waits until all notifications that the kernel sent before the call are in the
// cache and in the queue of changes.
func (m *Monitor) Sync(ctx context.Context) error {
	req := barrierRequest()
	w := waiter{done: make(chan struct{})}
	m.mu.Lock()
	if m.session != nil {
		w.session = m.session.number
		// The kernel answers after the messages that it has queued already. If
		// sending fails the session is broken, and the next one releases w.
		_ = m.session.sock.Send(req)
	}
	m.waiters[req.Seq] = w
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.waiters, req.Seq)
		m.mu.Unlock()
	}()
	select {
	case <-w.done:
		return nil
	case <-m.ctx.Done():
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("waiting for the link monitor: %w", context.Cause(ctx))
	}
}

// answered handles the answer to a marker; quiet means that nothing is being read.
func (m *Monitor) answered(seq uint32, quiet bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.waiters[seq]
	if !ok || w.answered {
		return
	}
	if w.answered = true; quiet {
		close(w.done)
		delete(m.waiters, seq)
		return
	}
	m.waiters[seq] = w
}

// complete records that a session has read everything.
func (m *Monitor) complete(session int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq, w := range m.waiters {
		if w.answered || w.session < session {
			close(w.done)
			delete(m.waiters, seq)
		}
	}
	if !m.isSynced() {
		close(m.synced)
	}
}

// Query asks the kernel for one interface, not the cache: the answer is exact at the
// time of the call. ok is false if there is none of that name. The name may be an
// alternative one; the link's own is in the answer.
func (m *Monitor) Query(name string) (link Link, ok bool, err error) {
	if name == "" || len(name) >= maxAltName {
		return Link{}, false, nil
	}
	if m.ctx.Err() != nil {
		return Link{}, false, errClosed
	}
	return m.queryLink("interface "+name, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(attributeOf(name), nl.ZeroTerminated(name)))
}

// QueryIndex asks the kernel for the interface with that index; ok is false for
// none.
func (m *Monitor) QueryIndex(index int) (link Link, ok bool, err error) {
	if index <= 0 {
		return Link{}, false, nil
	}
	if m.ctx.Err() != nil {
		return Link{}, false, errClosed
	}
	which := nl.NewIfInfomsg(unix.AF_UNSPEC)
	which.Index = int32(index)
	return m.queryLink(fmt.Sprintf("interface %d", index), which)
}

// queryLink sends one request for a link.
func (m *Monitor) queryLink(subject string, parts ...nl.NetlinkRequestData) (link Link, ok bool, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: m.query}
	req.AddData(parts[0]) // the header comes before attributes
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	for _, p := range parts[1:] {
		req.AddData(p)
	}
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) {
		return Link{}, false, nil
	}
	if err != nil {
		return Link{}, false, fmt.Errorf("asking the kernel for %s: %w", subject, err)
	}
	for _, data := range replies {
		if link, ok = parseLink(data); ok {
			return link, true, nil
		}
	}
	return Link{}, false, fmt.Errorf("asking the kernel for %s: its answer has no interface", subject)
}
