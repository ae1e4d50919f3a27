// Package watch follows the kernel's links, addresses and default routes, so
// that the service learns of a bridge within milliseconds and can check a
// network against the host without asking the kernel for everything each time.
// It only reads: it changes nothing in the kernel, and is independent of networks
// and rules.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// defaultReceiveBuffer holds a burst of some ten thousand link messages; with
	// the kernel's default of 208 KiB, 17 of 1,000 new bridges were received. It is
	// a bound, not an allocation.
	defaultReceiveBuffer = 32 << 20

	firstBackoff = 10 * time.Millisecond
	maxBackoff   = 5 * time.Second
	healthyAfter = 10 * time.Second
	queryTimeout = 3 * time.Second
)

// errClosed is returned by a monitor's methods after Close.
var errClosed = errors.New("the link monitor is closed")

// Link is a network interface.
type Link struct {
	Index  int
	Name   string
	Bridge bool // a Linux bridge; an Open vSwitch bridge is none
	Up     bool // administratively up

	// AltNames are the names beside Name. The kernel notifies of a change of them at
	// once only while the link is up, else with the link's next change
	// (netdev_state_change, Linux 6.18); Query is exact.
	AltNames AltNames
	Tap      bool // a tun or tap device, which connects a virtual machine
	Master   int  // index of the bridge or the like that it is a port of; 0 for none
}

// Address is one address of the host.
type Address struct {
	Index  int          // of the interface
	Prefix netip.Prefix // the address with the length of its subnet
	Peer   netip.Prefix // the other end of a point-to-point address; else not valid
}

// Route is a default route of the main table; a route with several next hops is
// one Route for each.
type Route struct {
	IPv6    bool
	Index   int        // of the interface it leaves by
	Gateway netip.Addr // not valid where there is none
	FromRA  bool       // the kernel learned it from a router advertisement
}

// Kind is what happened to a link, or to routes.
type Kind int

// The kinds of change.
const (
	Appeared      Kind = iota + 1 // New is set
	Gone                          // Old is set
	Renamed                       // both are set; other fields may differ too
	Updated                       // both are set; the name is the same
	RoutesChanged                 // neither is set; see DefaultRoutes
	ForwardingOff                 // neither is set; IP forwarding may be off, of the host or of a link
	Advertised                    // New is the link that a router advertisement was accepted on
)

// String returns the kind for logs.
func (k Kind) String() string {
	names := map[Kind]string{Appeared: "appeared", Gone: "gone", Renamed: "renamed",
		Updated: "updated", RoutesChanged: "routes changed",
		ForwardingOff: "forwarding off", Advertised: "advertised"}
	return names[k]
}

// Change is one event; changes are delivered in order. A slow consumer may receive
// several changes of one link as one, never less than their sum.
type Change struct {
	Kind     Kind
	Old, New Link
}

// Config configures a Monitor.
type Config struct {
	// NetNS is the network namespace to watch. The zero value means that of the
	// calling thread; the monitor keeps a handle of its own either way.
	NetNS netns.NsHandle
	Log   *slog.Logger // nil: no log

	receiveBuffer int // for tests; 0: defaultReceiveBuffer
}

// Monitor is a running link monitor. It is safe for concurrent use.
type Monitor struct {
	log    *slog.Logger
	ns     netns.NsHandle
	buffer int

	cache *cache
	queue *queue
	query *nl.SocketHandle

	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup
	synced  chan struct{} // closed when a session is complete for the first time

	mu      sync.Mutex
	session *session // the one that is reading now; nil in between
	number  int      // of the session
	waiters map[uint32]waiter
}

// Start subscribes and waits until the whole current state is read; that is not
// reported as changes. The monitor ends with ctx or Close; Close must be called in
// either case.
func Start(ctx context.Context, cfg Config) (*Monitor, error) {
	m, err := newMonitor(ctx, cfg)
	if err != nil {
		return nil, err
	}
	first, err := m.open()
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("subscribing to link changes: %w", err)
	}
	failed := make(chan error, 1)
	m.workers.Go(func() { m.run(first, failed) })
	select {
	case <-m.synced:
	case err = <-failed:
	case <-m.ctx.Done():
		err = context.Cause(m.ctx)
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("reading links, addresses and routes: %w", err)
	}
	m.queue.start(m.cache)
	m.workers.Go(func() { m.queue.deliver(m.ctx) })
	return m, nil
}

func newMonitor(ctx context.Context, cfg Config) (*Monitor, error) {
	ns, err := ownHandle(cfg.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	sock, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a netlink socket: %w", err), closeHandle(ns))
	}
	limit := unix.NsecToTimeval(int64(queryTimeout))
	_ = sock.SetSendTimeout(&limit)    // cannot fail: it sets a field
	_ = sock.SetReceiveTimeout(&limit) // likewise
	m := &Monitor{
		log: cfg.Log, ns: ns, buffer: cfg.receiveBuffer,
		query:   &nl.SocketHandle{Socket: sock},
		synced:  make(chan struct{}),
		waiters: make(map[uint32]waiter),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.buffer == 0 {
		m.buffer = defaultReceiveBuffer
	}
	m.queue = newQueue()
	m.cache = newCache(m.queue.push)
	m.ctx, m.cancel = context.WithCancel(ctx)
	return m, nil
}

// ownHandle returns none if the process is in the namespace with all its threads:
// entering one needs CAP_SYS_ADMIN, even for the process's own, which the service
// does not have.
func ownHandle(h netns.NsHandle) (netns.NsHandle, error) {
	if h == 0 || h == netns.None() {
		return handleOfThread()
	}
	fd, err := unix.FcntlInt(uintptr(h), unix.F_DUPFD_CLOEXEC, 0)
	return netns.NsHandle(fd), err
}

func handleOfThread() (netns.NsHandle, error) {
	here, err := netns.Get()
	if err != nil {
		return here, err
	}
	process, err := netns.GetFromPid(os.Getpid())
	if err != nil {
		return here, errors.Join(err, here.Close())
	}
	defer process.Close()
	if !here.Equal(process) {
		return here, nil
	}
	return netns.None(), here.Close()
}

// Close ends the monitor, waits for its goroutines and closes the channel of
// changes.
func (m *Monitor) Close() error {
	m.cancel()
	m.workers.Wait()
	m.queue.close()
	m.query.Close()
	return closeHandle(m.ns)
}

// closeHandle closes what ownHandle opened, if it did.
func closeHandle(ns netns.NsHandle) error {
	if !ns.IsOpen() {
		return nil
	}
	return ns.Close()
}

// Changes returns the channel of changes after Start. Close closes it.
func (m *Monitor) Changes() <-chan Change { return m.queue.out }

// Link returns the interface of that name.
func (m *Monitor) Link(name string) (Link, bool) { return m.cache.link(name) }

// LinkByName returns the interface that has the name as its own or as an alternative
// one; the kernel allows a name of either kind only once. Link accepts own names
// only. Callers that need an exact answer use Query, which accepts both kinds too.
func (m *Monitor) LinkByName(name string) (Link, bool) { return m.cache.linkByName(name) }

// LinkByIndex returns the interface with that index.
func (m *Monitor) LinkByIndex(index int) (Link, bool) { return m.cache.linkByIndex(index) }

// Links returns all interfaces in the order of their indexes.
func (m *Monitor) Links() []Link { return m.cache.allLinks() }

// Addresses returns all addresses of the host, by interface. Callers must not change
// them: they share them, since a host with many bridges has thousands.
func (m *Monitor) Addresses() []Address { return m.cache.allAddresses() }

// DefaultRoutes returns the default routes of the main table, IPv4 first.
func (m *Monitor) DefaultRoutes() []Route { return m.cache.defaultRoutes() }
