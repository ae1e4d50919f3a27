package servicetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// Firewalld is an in-memory firewalld, which outlives the service. It has zones
// public, trusted and work and, until Forget, the service's, and refuses what the
// real one refuses. A reload clears its bindings.
type Firewalld struct {
	mu       sync.Mutex
	running  bool
	lives    int // how often it has started
	silent   bool
	since    time.Time // when silent became true
	zones    []string
	policies []string
	bound    map[string]string
	watchers map[chan zones.Event]bool
	answers  chan struct{} // closed when it answers again
}

// ours are the zones and policies that the service installs.
var (
	oursZones    = []string{"libvirt", "libvirt-routed"}
	oursPolicies = []string{"libvirt-to-host", "libvirt-routed-in", "libvirt-routed-out"}
)

// NewFirewalld returns a running firewalld that has the service's zones.
func NewFirewalld() *Firewalld {
	return &Firewalld{
		running: true, lives: 1, bound: map[string]string{}, watchers: map[chan zones.Event]bool{},
		zones: slices.Concat([]string{"public", "trusted", "work"}, oursZones), policies: slices.Clone(oursPolicies),
	}
}

// Bound returns the zone of each interface that is in one.
func (f *Firewalld) Bound() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.bound)
}

// Move puts an interface into a zone, "" for none, as firewall-cmd does.
func (f *Firewalld) Move(iface, zone string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(iface, zone)
}

func (f *Firewalld) put(iface, zone string) {
	delete(f.bound, iface)
	if zone != "" {
		f.bound[iface] = zone
	}
	f.notify(zones.Event{Kind: zones.BindingChanged, Interface: iface, Zone: zone})
}

// Reload reloads firewalld, which clears the bindings.
func (f *Firewalld) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.bound)
	f.notify(zones.Event{Kind: zones.Reloaded})
}

// Stop stops firewalld, and Start starts it again.
func (f *Firewalld) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = false
	clear(f.bound)
	f.notify(zones.Event{Kind: zones.Vanished})
}

// Start starts firewalld again.
func (f *Firewalld) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = true
	f.lives++
	f.notify(zones.Event{Kind: zones.Appeared})
}

// Silence makes firewalld stop answering, for more than a second already, or
// answer again.
func (f *Firewalld) Silence(silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if silent == f.silent {
		return
	}
	f.silent = silent
	if silent {
		f.since, f.answers = time.Now().Add(-time.Second), make(chan struct{}) // a request has timed out
		return
	}
	close(f.answers)
}

// Busy makes firewalld stop answering from now on, until Silence(false).
func (f *Firewalld) Busy() {
	f.Silence(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = time.Now()
}

// Forget removes the service's zones and policies.
func (f *Firewalld) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.zones = slices.DeleteFunc(f.zones, func(z string) bool { return slices.Contains(oursZones, z) })
	f.policies = nil
	clear(f.bound)
	f.notify(zones.Event{Kind: zones.Reloaded})
}

// notify sends an event to all watchers. The caller holds mu.
func (f *Firewalld) notify(e zones.Event) {
	for c := range f.watchers {
		c <- e
	}
}

// answer returns why firewalld does not answer, or nil.
func (f *Firewalld) answer() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.running:
		return zones.ErrNotRunning
	case f.silent:
		return zones.ErrSilent{Limit: time.Second}
	}
	return nil
}

// Installed returns what firewalld has. It is no error if firewalld does not run.
func (f *Firewalld) Installed(context.Context) (zones.Installed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running {
		return zones.Installed{}, nil
	}
	return zones.Installed{Running: true, Life: strconv.Itoa(f.lives), Zones: slices.Clone(f.zones), Policies: slices.Clone(f.policies)}, nil
}

// Interfaces returns the zone of each interface that is in one.
func (f *Firewalld) Interfaces(context.Context) (map[string]string, error) {
	if err := f.answer(); err != nil {
		return nil, fmt.Errorf("listing bound interfaces: %w", err)
	}
	return f.Bound(), nil
}

// BindAll binds interfaces.
func (f *Firewalld) BindAll(_ context.Context, bindings []zones.Binding) (errs []error) {
	for _, b := range bindings {
		errs = append(errs, f.bind(b.Interface, b.Zone))
	}
	return errs
}

func (f *Firewalld) bind(iface, zone string) (err error) {
	if err = f.answer(); err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if slices.Contains(f.zones, zone) {
			f.put(iface, zone)
			return nil
		}
		err = zones.ErrZoneNotFound{Zone: zone}
	}
	return fmt.Errorf("binding %s to zone %s: %w", iface, zone, err)
}

// Unbind takes an interface out of a zone, "" for whichever it is in.
func (f *Firewalld) Unbind(_ context.Context, zone, iface string) error {
	if err := f.answer(); err != nil {
		return fmt.Errorf("unbinding %s: %w", iface, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now, in := f.bound[iface]; in && (zone == "" || now == zone) {
		f.put(iface, "")
	}
	return nil
}

// Unanswered returns for how long firewalld has not answered.
func (f *Firewalld) Unanswered() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.silent || !f.running {
		return 0
	}
	return time.Since(f.since)
}

// Backend returns the backend that firewalld itself uses.
func (f *Firewalld) Backend(context.Context) (string, error) {
	if err := f.answer(); err != nil {
		return "", err
	}
	return "nftables", nil
}

// Install adds missing zones and policies, and reloads if there are any.
func (f *Firewalld) Install(context.Context, bool, []string) (added []string, err error) {
	if err := f.answer(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	for _, z := range oursZones {
		if !slices.Contains(f.zones, z) {
			f.zones, added = append(f.zones, z), append(added, z)
		}
	}
	if len(f.policies) == 0 {
		f.policies, added = slices.Clone(oursPolicies), append(added, oursPolicies...)
	}
	f.mu.Unlock()
	if len(added) > 0 {
		f.Reload()
	}
	return added, nil
}

// Remove removes the zones and policies, unless interfaces are in them.
func (f *Firewalld) Remove(_ context.Context, o zones.Removal, _ []string) ([]string, error) {
	if err := f.answer(); err != nil {
		return nil, err
	}
	used := f.Bound()
	maps.DeleteFunc(used, func(_, zone string) bool { return !slices.Contains(oursZones, zone) })
	if len(used) > 0 && !o.Unbind {
		return nil, zones.ErrInUse{Interfaces: used}
	}
	f.Forget()
	return slices.Concat(oursZones, oursPolicies), nil
}

// Watch returns firewalld's events until ctx ends.
func (f *Firewalld) Watch(ctx context.Context) (<-chan zones.Event, error) {
	events, out := make(chan zones.Event, 4096), make(chan zones.Event)
	f.mu.Lock()
	f.watchers[events] = true
	f.mu.Unlock()
	go func() {
		defer close(out)
		for {
			select {
			case e := <-events:
				select {
				case out <- e:
					continue
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
			f.mu.Lock()
			delete(f.watchers, events)
			f.mu.Unlock()
			return
		}
	}()
	return out, nil
}

// Answer waits until firewalld answers.
func (f *Firewalld) Answer(ctx context.Context) error {
	f.mu.Lock()
	silent, answers := f.silent, f.answers
	f.mu.Unlock()
	if !silent {
		return nil
	}
	select {
	case <-answers:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
