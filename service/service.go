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
	Foreign   Foreign
	Libvirt   Libvirt
	Settings  Settings
	Totals    *Totals
	Log       *slog.Logger
	// Notify receives every event, in order. It must not block.
	Notify func(Event)

	Advertisements Advertisements
}

// Service is the reconciler: each part of it does one thing, and what clients call
// is here. Its methods may be called from any goroutine.
//
// Lock order: the lock on a network, a session with firewalld (binder), the change
// lock, the registry's mutexes; never the reverse. The first three are waited for
// as long as the caller's context lasts.
type Service struct {
	host      HostNeeds
	firewalld FirewalldProcess
	files     Files
	settings  Settings
	log       logger

	lock           *changeLock
	networks       *networks
	binder         *binding.Binder
	view           *hostView
	rules          *rules
	counters       *counterKeeper
	forwarding     *forwarder
	advertisements *advertiser
	connections    *connections
	changes        *transactions
	links          *linkFollower
	libvirt        *libvirtFollower
	foreign        *foreignFollower
	chooser        *backendChooser
	loader         *loader

	workers workers
	loops   sync.WaitGroup
	stop    context.CancelFunc
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
	foreign     *worker // what others' rules stop may be something else
	states      *worker // changes of State have no line in the log
}

// New returns a service that does nothing until Start.
func New(version string, d Deps) *Service {
	if d.Records == nil {
		d.Records = noRecords{}
	}
	if d.Leaving == nil {
		d.Leaving = noRecords{}
	}
	s := &Service{host: d.Host, firewalld: d.Firewalld, files: d.Files, settings: d.Settings, log: logger{d.Log}}
	w := &s.workers
	s.workers = s.newWorkers()
	s.lock = newChangeLock(w.comparison.signal)
	gone := &leaving{leavingRecords: d.Leaving, log: s.log, byBridge: map[string]*managed{}}
	s.networks = &networks{
		Registry: registry.New[*managed](hostState{Host: Host{Version: version}}),
		notify:   d.Notify, leaving: gone, log: s.log, flapping: w.states.signal,
	}
	s.view = &hostView{hostLinks: d.Links, networks: s.networks, log: s.log, workers: w}
	s.connections = &connections{host: d.Host, networks: s.networks, log: s.log, workers: w}
	s.rules = &rules{
		backends: d.Backends, table: d.Table, chains: d.Chains, lock: s.lock, log: s.log, workers: w,
		networks: s.networks, leaving: gone, view: s.view, connections: s.connections, moving: newSignal(),
	}
	s.counters = &counterKeeper{totals: d.Totals, files: d.Files, backend: s.rules.backend, log: s.log, workers: w}
	s.rules.counters = s.counters
	s.forwarding = &forwarder{host: d.Host, networks: s.networks, lock: s.lock, log: s.log, fights: fights{}}
	s.advertisements = &advertiser{bridges: d.Advertisements, networks: s.networks, log: s.log}
	s.changes = &transactions{
		files: d.Files, leavingRecords: d.Leaving, networks: s.networks, leaving: gone, view: s.view,
		rules: s.rules, counters: s.counters, forwarding: s.forwarding, advertisements: s.advertisements,
		connections: s.connections, lock: s.lock, log: s.log, workers: w,
	}
	s.binder = binding.New(binding.Config{
		Zones: d.Zones, Records: d.Records, Log: d.Log,
		Networks: zonedNetworks{lock: s.lock, networks: s.networks, changes: s.changes},
	})
	s.networks.binder, s.rules.binder, s.changes.binder = s.binder, s.binder, s.binder
	s.links = &linkFollower{
		hostLinks: d.Links, networks: s.networks, view: s.view, changes: s.changes, forwarding: s.forwarding,
		advertisements: s.advertisements, lock: s.lock, workers: w, probe: make(chan chan struct{}),
	}
	s.libvirt = &libvirtFollower{
		libvirtState: d.Libvirt, leftovers: d.Leftovers, backends: d.Backends, networks: s.networks,
		rules: s.rules, lock: s.lock, log: s.log, workers: w,
	}
	s.foreign = &foreignFollower{foreign: d.Foreign, ours: s.rules, links: d.Links, binder: s.binder, networks: s.networks, lock: s.lock, log: s.log, workers: w}
	s.chooser = &backendChooser{settings: d.Settings, backends: d.Backends, networks: s.networks, log: s.log}
	s.loader = &loader{
		files: d.Files, records: d.Records, leavingRecords: d.Leaving, totals: d.Totals, binder: s.binder,
		networks: s.networks, leaving: gone, view: s.view, rules: s.rules, changes: s.changes,
		forwarding: s.forwarding, advertisements: s.advertisements, connections: s.connections, log: s.log, workers: w,
	}
	return s
}

// newWorkers returns the workers of the service's parts, which are there by the
// time that a worker runs.
func (s *Service) newWorkers() workers {
	return workers{
		comparison: &worker{signal: newSignal(), pause: mendPause, work: s.compareAgain},
		checksums:  &worker{signal: newSignal(), pause: dhcpPause, share: dhcpShare, work: s.fillChecksums},
		counters:   &worker{signal: newSignal(), pause: counterSavePause, work: func(ctx context.Context) time.Time { return s.counters.round(ctx) }},
		forwarding: &worker{signal: newSignal(), work: func(ctx context.Context) time.Time { return s.forwarding.round(ctx) }},
		libvirt:    &worker{signal: newSignal(), pause: leftoverPause, work: func(ctx context.Context) time.Time { return s.libvirt.round(ctx) }},
		foreign:    &worker{signal: newSignal(), pause: foreignPause, share: foreignShare, work: func(ctx context.Context) time.Time { return s.foreign.round(ctx) }},
		connections: &worker{
			signal: newSignal(), rest: translationRest,
			work: func(context.Context) (never time.Time) { s.connections.forget(); return never },
			last: func() { s.connections.forget() }, // what is left to do when the service ends
		},
		states: &worker{
			signal: newSignal(),
			work:   func(context.Context) time.Time { return s.networks.sumUpFlapping(time.Now()) },
			last:   func() { s.networks.sumUpFlapping(time.Now().Add(flapWindow)) },
		},
	}
}

// Start loads the stored networks, puts them in force and begins to follow the
// host. The rules are in the kernel when it returns; zones follow at once.
func (s *Service) Start(ctx context.Context) error {
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	c, unusable := s.settings.AtStart()
	d, err := s.chooser.choose(ctx, c.Configured)
	if err != nil {
		return errors.Join(err, unusable)
	}
	s.rules.activate(s.rules.backends.Get(d.Backend))
	s.chooser.decided(c.Configured, d)
	s.chooser.configured(c, unusable)
	if err := s.loader.takeOver(ctx); err != nil {
		return err
	}
	loop, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	firewalld, err := s.firewalld.Watch(loop)
	if err != nil {
		cancel()
		return fmt.Errorf("following firewalld: %w", err)
	}
	s.loops.Go(func() { s.links.follow(loop) })
	s.loops.Go(func() {
		s.binder.Run(loop, firewalld, s.compareZones)
		for range firewalld { // closed once the watch has ended
		}
	})
	s.loops.Go(func() { s.rules.followChains(loop) })
	s.loops.Go(func() { s.libvirt.follow(loop) })
	s.loops.Go(func() { s.foreign.follow(loop) })
	t := s.workers
	for _, w := range []*worker{t.comparison, t.checksums, t.connections, t.counters, t.forwarding, t.libvirt, t.foreign, t.states, s.rules.tableWorker()} {
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
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	totals, err := s.counters.read(ctx, 0)
	if err != nil {
		return fmt.Errorf("reading the counters to keep them: %w", err)
	}
	return s.files.SaveCounters(totals)
}

// Alive reports whether changes can still be made, and whether the host's links
// are still followed, within the context's time.
func (s *Service) Alive(ctx context.Context) bool {
	if s.lock.acquire(ctx) != nil {
		return false
	}
	s.lock.release()
	answer := make(chan struct{})
	select {
	case s.links.probe <- answer:
	case <-ctx.Done():
		return false
	}
	<-answer
	return true
}
