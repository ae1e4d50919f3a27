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

// Firewalld is firewalld in memory, which outlives the service. It has the zones
// of this project and the one called trusted and work, or none of ours, and
// refuses what the real one refuses. Its bindings end with its reload.
type Firewalld struct {
	mu       sync.Mutex
	running  bool
	lives    int // how often it has begun
	silent   bool
	since    time.Time // of its silence
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

// Bound are the interfaces that are in zones.
func (f *Firewalld) Bound() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.bound)
}

// Move is somebody's firewall-cmd: the interface is in the zone from now on, ""
// for none.
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
	f.tell(zones.Event{Kind: zones.BindingChanged, Interface: iface, Zone: zone})
}

// Reload is firewalld's own reload: bindings are gone.
func (f *Firewalld) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.bound)
	f.tell(zones.Event{Kind: zones.Reloaded})
}

// Stop ends firewalld, and Start begins it again.
func (f *Firewalld) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = false
	clear(f.bound)
	f.tell(zones.Event{Kind: zones.Vanished})
}

// Start begins firewalld again.
func (f *Firewalld) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = true
	f.lives++
	f.tell(zones.Event{Kind: zones.Appeared})
}

// Silence has firewalld answer nothing more, or answer again.
func (f *Firewalld) Silence(silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if silent == f.silent {
		return
	}
	f.silent = silent
	if silent {
		f.since, f.answers = time.Now().Add(-time.Second), make(chan struct{}) // a question was given up
		return
	}
	close(f.answers)
}

// Busy has firewalld answer nothing from now on, until Silence(false).
func (f *Firewalld) Busy() {
	f.Silence(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = time.Now()
}

// Forget takes the service's zones and policies away.
func (f *Firewalld) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.zones = slices.DeleteFunc(f.zones, func(z string) bool { return slices.Contains(oursZones, z) })
	f.policies = nil
	clear(f.bound)
	f.tell(zones.Event{Kind: zones.Reloaded})
}

// tell tells of an event. The caller holds mu.
func (f *Firewalld) tell(e zones.Event) {
	for c := range f.watchers {
		c <- e
	}
}

// answer waits as a client does, and returns why there is no answer.
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

// Installed is what firewalld has. That it does not run is no error.
func (f *Firewalld) Installed(context.Context) (zones.Installed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running {
		return zones.Installed{}, nil
	}
	return zones.Installed{Running: true, Life: strconv.Itoa(f.lives), Zones: slices.Clone(f.zones), Policies: slices.Clone(f.policies)}, nil
}

// Interfaces are all interfaces that are in a zone.
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

// Unbind takes an interface out of a zone, or out of whichever it is in for "".
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

// Unanswered is for how long firewalld has not answered.
func (f *Firewalld) Unanswered() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.silent || !f.running {
		return 0
	}
	return time.Since(f.since)
}

// Backend is the one that firewalld itself uses.
func (f *Firewalld) Backend(context.Context) (string, error) {
	if err := f.answer(); err != nil {
		return "", err
	}
	return "nftables", nil
}

// Install adds the zones and policies that are missing, and reloads then.
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

// Remove takes the zones and policies out, unless interfaces are in them.
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

// Watch tells what firewalld does by itself until ctx ends.
func (f *Firewalld) Watch(ctx context.Context) (<-chan zones.Event, error) {
	told, out := make(chan zones.Event, 4096), make(chan zones.Event)
	f.mu.Lock()
	f.watchers[told] = true
	f.mu.Unlock()
	go func() {
		defer close(out)
		for {
			select {
			case e := <-told:
				select {
				case out <- e:
					continue
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
			f.mu.Lock()
			delete(f.watchers, told)
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
