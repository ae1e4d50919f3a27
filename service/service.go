// Package service keeps the firewall of every network as it should be. It holds
// the networks, turns them into rules, and brings kernel, zones and files in
// line with them, whatever the cause of a change: a call, a bridge that
// appeared, firewalld's return, a restart. It knows nothing of D-Bus messages
// and of netlink: both are other packages' work.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/registry"
)

// Deps are what the service works with; all but those that say so are required.
type Deps struct {
	Backends  Backends
	Links     Links
	Table     Table
	Chains    Chains
	Zones     binding.Zones
	Firewalld FirewalldProcess
	Files     Files
	// Records and Leaving are what is remembered of zones; nil for nothing.
	Records   binding.Records
	Leaving   LeavingRecords
	Host      HostNeeds
	Leftovers Leftovers
	Libvirt   Libvirt
	Settings  Settings
	Totals    *Totals
	Log       *slog.Logger
	// Notify is told of every event, in order. It must not block.
	Notify func(Event)

	Advertisements Advertisements
}

// Service is the reconciler. Its methods may be called from any goroutine.
type Service struct {
	Deps
	version string

	// Lock order: the turn at a network, a session with firewalld (binder), the
	// change lock (changing), the registry's mutexes; never the reverse. The first
	// three are waited for as long as the caller's context lasts.

	// changing holds the one token of the change lock, which whoever changes
	// anything has.
	changing chan struct{}
	turns    turns // at changes of single networks

	registry *registry.Registry[*managed, hostState]
	binder   *binding.Binder
	leaving  leaving

	mu     sync.RWMutex    // guards active; held for moments only
	active backend.Backend // the one that holds the rules; changed under changing too

	counters counterCache
	workers  workers
	loops    sync.WaitGroup
	stop     context.CancelFunc

	moving signal             // says that another backend may hold the rules
	probe  chan chan struct{} // the loop that follows the links closes what it receives

	repairs repairs // whoever holds changing

	early untranslated

	states stateLog
}

// workers are those that calls and other loops trigger, each when what is said
// of it here may be so.
type workers struct {
	comparison  *worker // something failed that a full comparison mends
	checksums   *worker // bridges serve DHCP that did not, or the reverse
	connections *worker // connections began before their translation was there
	counters    *worker // counters were read
	forwarding  *worker // forwarding is off
	libvirt     *worker // libvirt has another network, or has left something for one
	states      *worker // changes of State have no line in the log
}

// New makes a service that does nothing until Start.
func New(version string, d Deps) *Service {
	s := &Service{
		Deps: d, version: version,
		changing: make(chan struct{}, 1),
		registry: registry.New[*managed](hostState{Host: Host{Version: version}}),
		leaving:  leaving{byBridge: map[string]*managed{}},

		moving: newSignal(),
		probe:  make(chan chan struct{}),
	}
	s.workers = workers{
		comparison:  s.comparisonWorker(),
		checksums:   s.checksumWorker(),
		connections: s.connectionWorker(),
		counters:    s.counterWorker(),
		forwarding:  s.forwardingWorker(),
		libvirt:     s.libvirtWorker(),
		states:      s.stateWorker(),
	}
	if d.Records == nil {
		s.Records = noRecords{}
	}
	if d.Leaving == nil {
		s.Leaving = noRecords{}
	}
	s.binder = binding.New(binding.Config{Zones: d.Zones, Records: s.Records, Networks: zonedNetworks{s}, Log: d.Log})
	return s
}

// lock takes the right to change things, or gives up with the context.
func (s *Service) lock(ctx context.Context) error {
	select {
	case s.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change to end: %w", ctx.Err())
	}
}

func (s *Service) unlock() { <-s.changing }

// Start loads the stored networks, puts them in force and begins to follow the
// host. The rules are in the kernel when it returns; zones follow at once.
func (s *Service) Start(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	c, unusable := s.Settings.AtStart()
	d, err := s.choose(ctx, c.Configured)
	if err != nil {
		return errors.Join(err, unusable)
	}
	s.active = s.Backends.Get(d.Backend)
	s.decided(c.Configured, d)
	s.configured(c, unusable)
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	loop, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	firewalld, err := s.Firewalld.Watch(loop)
	if err != nil {
		cancel()
		return fmt.Errorf("following firewalld: %w", err)
	}
	s.loops.Go(func() { s.run(loop) })
	s.loops.Go(func() {
		s.binder.Run(loop, firewalld, s.compareZones)
		for range firewalld { // closed when nobody watches any more
		}
	})
	s.loops.Go(func() { s.followChains(loop) })
	s.loops.Go(func() { s.followLibvirt(loop) })
	t := s.workers
	for _, w := range []*worker{t.comparison, t.checksums, t.connections, t.counters, t.forwarding, t.libvirt, t.states, s.tableWorker()} {
		s.loops.Go(func() { w.run(loop) })
	}
	return nil
}

// Close stops following the host and leaves all rules in place. Where Start
// failed there is nothing to stop, and no counters but the last run's to keep.
func (s *Service) Close() error {
	if s.stop == nil {
		return nil
	}
	s.stop()
	s.loops.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	totals, err := s.readCounters(ctx, 0)
	if err != nil {
		return fmt.Errorf("reading the counters to keep them: %w", err)
	}
	return s.Files.SaveCounters(totals)
}

// Alive reports whether changes can still be made, and whether the host's links
// are still followed, within the context's time.
func (s *Service) Alive(ctx context.Context) bool {
	if s.lock(ctx) != nil {
		return false
	}
	s.unlock()
	answer := make(chan struct{})
	select {
	case s.probe <- answer:
	case <-ctx.Done():
		return false
	}
	<-answer
	return true
}
