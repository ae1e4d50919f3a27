package dbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// closeGrace is how long Close waits before it cancels the running calls. After
// as long again it takes the bus for stuck.
const closeGrace = 2 * time.Second

// Server serves the contract's objects on a bus.
type Server struct {
	bus  *Bus
	api  service.API
	auth Authorizer
	log  *slog.Logger

	methods map[string]map[string]method // by interface, by name

	root, others pools
	denials      *denialLog
	events       *queue[service.Event]
	overflow     sync.Once

	// order is held while signals of one event are sent, and while a reply that
	// shows the same state is made and sent: a reply that arrives after a signal
	// is never older than it, so that a client which replaces its state by the
	// reply loses nothing.
	order sync.Mutex

	mu      sync.Mutex
	up      bool // calls are served
	calls   sync.WaitGroup
	emitter chan struct{} // closed when the emitting goroutine has ended
	base    context.Context
	cancel  context.CancelFunc
}

// New makes a server that does nothing until Start.
func New(bus *Bus, api service.API, auth Authorizer, log *slog.Logger) (*Server, error) {
	spec, err := parseInterfaces(InterfaceXML)
	if err != nil {
		return nil, err
	}
	s := &Server{
		bus: bus, api: api, auth: auth, log: log,
		root: rootPools(), others: otherPools(), denials: newDenialLog(log),
		events:  newQueue[service.Event](),
		emitter: make(chan struct{}),
	}
	exported := &exports{api: api, spec: spec, bus: bus}
	if s.methods, err = withSignatures(exported.handlers(), spec); err != nil {
		return nil, err
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Start serves the objects, and only then requests the name: a client that waits
// for the name finds all objects. ctx limits the request. After a failure the
// server cannot be started again.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	s.bus.handler.server.Store(s)
	go s.emit()
	if err := s.requestName(ctx); err != nil {
		s.Close()
		return err
	}
	return nil
}

func (s *Server) requestName(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var answer uint32
	err := s.bus.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.RequestName", 0,
		BusName, uint32(godbus.NameFlagDoNotQueue)).Store(&answer)
	if err != nil {
		return fmt.Errorf("requesting the bus name %s: %w; check that the bus policy file %s.conf is installed", BusName, err, BusName)
	}
	if r := godbus.RequestNameReply(answer); r != godbus.RequestNameReplyPrimaryOwner && r != godbus.RequestNameReplyAlreadyOwner {
		return fmt.Errorf("requesting the bus name %s: another process owns it%s; stop that one first", BusName, s.ownerOfName(ctx))
	}
	return nil
}

// ownerOfName returns the name's owner for an error message; "" if unknown.
func (s *Server) ownerOfName(ctx context.Context) string {
	var pid uint32
	err := s.bus.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, BusName).Store(&pid)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// Notify queues an event after the others, and never blocks. It drops events
// before Start: the service does not have its name yet, so no client needs them.
func (s *Server) Notify(e service.Event) {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if !up || s.events.add(item[service.Event]{event: e}) {
		return
	}
	s.overflow.Do(func() {
		s.log.Error("the bus does not take signals any more; closing the connection", "waiting", maxQueued)
		_ = s.bus.socket.Close()
	})
}

// Close releases the name, waits for the running calls, emits the events that
// are queued, and returns when no goroutine of the server is left. The
// connection stays open, unless the bus has stopped reading from it.
func (s *Server) Close() {
	s.mu.Lock()
	wasUp := s.up
	s.up = false
	s.mu.Unlock()
	if !wasUp {
		return
	}
	defer time.AfterFunc(closeGrace, s.cancel).Stop()
	defer time.AfterFunc(2*closeGrace, func() { _ = s.bus.socket.Close() }).Stop()
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	// It does not matter whether this succeeds: the name goes with the connection.
	_ = s.bus.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.ReleaseName", 0, BusName).Err
	s.calls.Wait()
	s.cancel()
	s.events.close()
	<-s.emitter
}

// begin counts a call as running and returns true, unless the server is not up.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		s.calls.Add(1)
	}
	return s.up
}

func (s *Server) emit() {
	defer close(s.emitter)
	s.events.each(func(e service.Event) {
		s.order.Lock()
		defer s.order.Unlock()
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic while emitting signals", "event", fmt.Sprintf("%T", e), "panic", p)
			}
		}()
		s.signals(e)
	})
}
