// Package registry holds what a service knows of its networks and of its host,
// as values that are never changed: they go in whole, and whoever reads one may
// keep it. What is told of changes is told in the order in which they were made.
//
// It knows nothing of what a network is beside its name and its bridge.
package registry

import (
	"maps"
	"slices"
	"sync"
)

// Network is one network as a value: a pointer to what nobody changes.
type Network interface {
	comparable // the zero value is none
	Name() string
	// Bridge is the name of the bridge that it is configured for, and Iface the
	// name that this bridge has now.
	Bridge() string
	Iface() string
	// Index is the interface index of the bridge, 0 while there is none.
	Index() int
}

// Change is one network's way from what it was to what it is: Old is the zero
// value for a new network, Next for one that goes.
type Change[N Network] struct{ Old, Next N }

// Name is that of the network.
func (c Change[N]) Name() string {
	var none N
	if c.Next != none {
		return c.Next.Name()
	}
	return c.Old.Name()
}

// Registry holds networks, and a host. Its methods may be called from any
// goroutine.
type Registry[N Network, H any] struct {
	// telling is held while something is changed and told of, so that what is
	// told is in the order of the changes. It is taken before mu.
	telling sync.Mutex

	mu       sync.RWMutex // held for moments only
	networks map[string]N
	bridges  map[string]string // the network that is configured for a bridge
	// reserved are what networks were before a change that is not certain yet;
	// the zero value for one that is new.
	reserved map[string]N
	host     H
}

// New returns a registry of no networks.
func New[N Network, H any](host H) *Registry[N, H] {
	return &Registry[N, H]{networks: map[string]N{}, bridges: map[string]string{}, reserved: map[string]N{}, host: host}
}

// Get returns the network of that name.
func (r *Registry[N, H]) Get(name string) (N, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n, ok := r.networks[name]
	return n, ok
}

// All returns all networks, in no order.
func (r *Registry[N, H]) All() []N {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.networks))
}

// Len returns how many networks there are.
func (r *Registry[N, H]) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.networks)
}

// Claims returns all networks, and what those were whose change is not certain
// yet: it comes back where the change fails.
func (r *Registry[N, H]) Claims() []N {
	var none N
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := slices.Collect(maps.Values(r.networks))
	for _, was := range r.reserved {
		if was != none {
			all = append(all, was)
		}
	}
	return all
}

// ByIndex returns the claims whose bridge has an interface index, which is not 0.
func (r *Registry[N, H]) ByIndex(index int) []N {
	if index == 0 {
		return nil
	}
	return slices.DeleteFunc(r.Claims(), func(n N) bool { return n.Index() != index })
}

// ConfiguredFor returns the network that is configured for a bridge.
func (r *Registry[N, H]) ConfiguredFor(bridge string) (name string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name, ok = r.bridges[bridge]
	return name, ok
}

// Claimant returns the network that is configured for a bridge, or that is again
// where a change under way fails.
func (r *Registry[N, H]) Claimant(bridge string) (name string, ok bool) {
	if name, ok = r.ConfiguredFor(bridge); ok {
		return name, true
	}
	for _, n := range r.Claims() {
		if n.Bridge() == bridge {
			return n.Name(), true
		}
	}
	return "", false
}

// HolderOf returns the network whose bridge has a name now.
func (r *Registry[N, H]) HolderOf(iface string) (name string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if name, ok = r.bridges[iface]; ok && r.networks[name].Iface() == iface {
		return name, true
	}
	for name, n := range r.networks {
		if n.Iface() == iface {
			return name, true
		}
	}
	return "", false
}

// Put makes changes visible and returns those that are certain. tell is called
// with them before anything else is changed or told, nil for nobody to tell.
func (r *Registry[N, H]) Put(changes []Change[N], tell func(certain []Change[N])) {
	r.telling.Lock()
	defer r.telling.Unlock()
	certain := r.put(changes)
	if tell != nil {
		tell(certain)
	}
}

// put makes changes visible. What leaves a bridge leaves it before what comes.
func (r *Registry[N, H]) put(changes []Change[N]) (certain []Change[N]) {
	var none N
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.Old == none {
			continue
		}
		delete(r.networks, c.Old.Name())
		if r.bridges[c.Old.Bridge()] == c.Old.Name() {
			delete(r.bridges, c.Old.Bridge())
		}
	}
	for _, c := range changes {
		if c.Next != none {
			r.networks[c.Next.Name()] = c.Next
			r.bridges[c.Next.Bridge()] = c.Next.Name()
		}
		if _, uncertain := r.reserved[c.Name()]; !uncertain {
			certain = append(certain, c)
		}
	}
	return certain
}

// Edit changes one network by a function from value to value, and tells of it as
// Put does. Nothing is done where there is no network of that name, or where the
// function returns what it was given.
func (r *Registry[N, H]) Edit(name string, f func(N) N, tell func(certain []Change[N])) {
	r.telling.Lock()
	defer r.telling.Unlock()
	old, ok := r.Get(name)
	if !ok {
		return
	}
	if next := f(old); next != old {
		if certain := r.put([]Change[N]{{Old: old, Next: next}}); tell != nil {
			tell(certain)
		}
	}
}

// Reserve makes a change visible that is not certain yet. Nobody is told of the
// network until Release, and what it was stays reserved.
func (r *Registry[N, H]) Reserve(c Change[N]) {
	r.mu.Lock()
	r.reserved[c.Name()] = c.Old
	r.mu.Unlock()
	r.put([]Change[N]{c})
}

// Release ends what Reserve began.
func (r *Registry[N, H]) Release(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reserved, name)
}

// Uncertain reports whether a network's change is not certain yet.
func (r *Registry[N, H]) Uncertain(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, uncertain := r.reserved[name]
	return uncertain
}

// Host returns what is known of the host.
func (r *Registry[N, H]) Host() H {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.host
}

// EditHost changes what is known of the host by a function from value to value.
// tell is called with both before anything else is changed or told.
func (r *Registry[N, H]) EditHost(f func(H) H, tell func(old, next H)) {
	r.telling.Lock()
	defer r.telling.Unlock()
	old := r.Host()
	next := f(old)
	r.mu.Lock()
	r.host = next
	r.mu.Unlock()
	tell(old, next)
}
