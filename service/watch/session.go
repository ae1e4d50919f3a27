package watch

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// step is one request of a session that is answered on its socket.
type step int

const (
	readLinks step = iota + 1
	readAddresses
	// barrier is a request that the kernel answers under the RTNL lock. When an IPv4
	// address is deleted, the kernel sends the notification before it drops the
	// routes that need it, both under that lock, while routes are dumped without it
	// (Linux 6.9): a dump right after the notification could still show them.
	barrier
	readRoutes4
	readRoutes6
)

// session is one subscription and what is being read over it. Dumps use the
// subscribed socket itself, so that notifications and dumps have one order: if both
// have the same link during a dump, the notification is the newer.
type session struct {
	monitor *Monitor
	number  int
	sock    *nl.NetlinkSocket
	port    uint32

	steps       []step // the first is in progress
	seq         uint32 // of the step in progress
	interrupted bool
	retries     int  // of an interrupted dump
	reread      bool // routes changed while they were read

	links     dump[int, Link]
	addresses dump[Address, Address]
	routes    []Route
	// firstRoute is where in routes the dump in progress begins.
	firstRoute int
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS: it halves a link's message.
const skipStatistics = 1 << 3

// maxRetries bounds the dumps of something that changes all the time, such as the
// routes of a host that speaks BGP; a change of a default route during such a dump
// has a notification of its own.
const maxRetries = 3

// run reads until the monitor ends, with a new session whenever one breaks. An
// error of the first session before it is complete goes to failed.
func (m *Monitor) run(s *session, failed chan<- error) {
	backoff := firstBackoff
	for {
		began := time.Now()
		err := s.serve(m.ctx)
		if m.ctx.Err() != nil {
			return
		}
		if !m.isSynced() {
			failed <- err
			return
		}
		if time.Since(began) > healthyAfter {
			backoff = firstBackoff
		}
		m.log.Warn("link monitor lost messages and reads everything again", "error", err)
		for s = nil; s == nil; backoff = min(2*backoff, maxBackoff) {
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(backoff):
			}
			if s, err = m.open(); err != nil {
				m.log.Error("link monitor cannot subscribe", "error", err)
			}
		}
		m.cache.forwardingOff() // such a notification may have been lost
	}
}

func (m *Monitor) isSynced() bool {
	select {
	case <-m.synced:
		return true
	default:
		return false
	}
}

// open subscribes before anything is read: what changes after the dump began is in
// the socket's queue.
func (m *Monitor) open() (*session, error) {
	sock, err := nl.SubscribeAt(m.ns, netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_IPV6_PREFIX)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := sock.SetReceiveBufferSize(m.buffer, true); err != nil {
		m.log.Warn("link monitor has a small receive buffer", "error", err)
		_ = sock.SetReceiveBufferSize(m.buffer, false)
	}
	// Linux 4.20: lets the kernel leave out other tables' routes. Without it
	// they are sent and left out here.
	_ = unix.SetsockoptInt(sock.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	port, err := sock.GetPid()
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("reading the socket's port: %w", err)
	}
	s := &session{monitor: m, sock: sock, port: port}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	s.number, m.session = m.number, s
	return s, nil
}

// serve reads the socket until it breaks or ctx ends, and closes it.
func (s *session) serve(ctx context.Context) error {
	unblock := context.AfterFunc(ctx, s.sock.Close)
	defer func() {
		s.monitor.mu.Lock()
		s.monitor.session = nil
		s.monitor.mu.Unlock()
		if unblock() {
			s.sock.Close()
		}
	}()
	s.links.begin()
	s.addresses.begin()
	s.steps = []step{readLinks, readAddresses, readRoutes4, readRoutes6}
	if err := s.request(); err != nil {
		return err
	}
	for {
		messages, from, err := s.sock.Receive()
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, msg := range messages {
			if err := s.handle(msg); err != nil {
				return err
			}
		}
	}
}

// request sends the request of the first step.
func (s *session) request() error {
	req := s.steps[0].request()
	s.seq, s.interrupted = req.Seq, false
	if err := s.sock.Send(req); err != nil {
		return fmt.Errorf("sending a request: %w", err)
	}
	return nil
}

func (s step) request() *nl.NetlinkRequest {
	switch s {
	case readLinks:
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
		return req
	case readAddresses:
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		return req
	case readRoutes4:
		return routesRequest(unix.AF_INET)
	case readRoutes6:
		return routesRequest(unix.AF_INET6)
	default:
		return barrierRequest()
	}
}

func routesRequest(family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}})
	return req
}

// barrierRequest requests the loopback interface, which every namespace has.
func barrierRequest() *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = 1
	req.AddData(info)
	return req
}

func (s *session) handle(msg syscall.NetlinkMessage) error {
	if msg.Header.Pid != s.port {
		s.event(msg)
		return nil
	}
	if len(s.steps) == 0 || msg.Header.Seq != s.seq {
		if msg.Header.Type == unix.RTM_NEWLINK || msg.Header.Type == unix.NLMSG_ERROR {
			s.monitor.answered(msg.Header.Seq, len(s.steps) == 0)
		}
		return nil
	}
	if msg.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
		s.interrupted = true
	}
	switch msg.Header.Type {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		return s.endDump(msg.Data)
	}
	if s.steps[0] == barrier {
		return s.next()
	}
	s.addItem(msg)
	return nil
}

// endDump handles the end of a dump. A main table that never had a route does not
// exist.
func (s *session) endDump(data []byte) error {
	if errno := errorNumber(data); errno != 0 && !errors.Is(errno, unix.ENOENT) {
		return fmt.Errorf("dumping: %w", errno)
	}
	if s.interrupted && s.retries < maxRetries {
		s.retries++
		s.links.forget()
		s.addresses.forget()
		if s.steps[0] == readRoutes4 || s.steps[0] == readRoutes6 {
			s.routes = s.routes[:s.firstRoute]
		}
		return s.request()
	}
	s.retries, s.firstRoute = 0, len(s.routes)
	return s.next()
}

// addItem adds one message of a dump.
func (s *session) addItem(msg syscall.NetlinkMessage) {
	switch s.steps[0] {
	case readLinks:
		if l, ok := parseLink(msg.Data); ok {
			s.links.found[l.Index] = l
		}
	case readAddresses:
		if a, ok := parseAddress(msg.Data); ok {
			s.addresses.found[a] = a
		}
	case readRoutes4, readRoutes6:
		s.routes = append(s.routes, parseDefaultRoute(msg.Data)...)
	}
}

// next completes the step in progress and starts the next one.
func (s *session) next() error {
	c := s.monitor.cache
	switch s.steps[0] {
	case readLinks:
		c.replaceLinks(s.links)
		s.links.end()
	case readAddresses:
		c.replaceAddresses(s.addresses)
		s.addresses.end()
	case readRoutes6:
		if s.reread {
			break // what was read is inconsistent; it is read again below
		}
		c.replaceRoutes(s.routes)
	}
	s.steps = s.steps[1:]
	if len(s.steps) > 0 {
		return s.request()
	}
	s.routes, s.firstRoute = nil, 0
	if s.reread {
		return s.readRoutesAgain()
	}
	s.monitor.complete(s.number)
	return nil
}

func (s *session) readRoutesAgain() error {
	s.reread = false
	s.steps = []step{barrier, readRoutes4, readRoutes6}
	return s.request()
}

// event handles a notification of a change.
func (s *session) event(msg syscall.NetlinkMessage) {
	c, routes := s.monitor.cache, false
	switch msg.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if l, ok := parseLink(msg.Data); ok {
			s.links.touch(l.Index)
			routes = c.linkEvent(l, msg.Header.Type == unix.RTM_DELLINK)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if a, ok := parseAddress(msg.Data); ok {
			s.addresses.touch(a)
			routes = c.addressEvent(a, msg.Header.Type == unix.RTM_DELADDR)
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		routes = isDefaultRoute(msg.Data)
	case unix.RTM_NEWNETCONF:
		if switchesForwardingOff(msg.Data) {
			c.forwardingOff()
		}
	case unix.RTM_NEWPREFIX:
		if index, ok := parsePrefix(msg.Data); ok {
			c.advertised(index)
		}
	}
	if routes {
		s.routesTouched()
	}
}

// routesTouched makes the default routes be read again. A routing table cannot be
// followed by its notifications: there are none for IPv4 routes that are removed
// with a device or address, and for a replaced route there is only its replacement.
func (s *session) routesTouched() {
	if len(s.steps) > 0 {
		s.reread = true
		return
	}
	if err := s.readRoutesAgain(); err != nil {
		s.monitor.log.Warn("link monitor cannot ask for routes", "error", err)
		s.sock.Close() // the reader opens a new session
	}
}
