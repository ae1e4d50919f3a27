// Package registry holds a service's networks and the state of its host, as immutable
// values: they are replaced as a whole, and readers may keep them. Notifications are
// in the order of the changes.
//
// Of a network it only knows the name and the bridge.
package registry

import (
	"maps"
	"slices"
	"sync"
)

// Network is one network as a value: a pointer to something immutable.
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

// Change is a change of one network: Old is the zero value for a new network, Next
// for a removed one.
type Change[N Network] struct{ Old, Next N }

// Name returns the network's name.
func (c Change[N]) Name() string {
	var none N
	if c.Next != none {
		return c.Next.Name()
	}
	return c.Old.Name()
}

// Registry holds networks, and a host. It is safe for concurrent use.
type Registry[N Network, H any] struct {
	// telling is held during a change and its notification, so that notifications
	// are in the order of the changes. Lock order: telling, then mu.
	telling sync.Mutex

	mu       sync.RWMutex // never held while blocking
	networks map[string]N
	bridges  map[string]string // the network that is configured for a bridge
	// reserved holds what networks were before a change that is not certain yet; the
	// zero value for a new one.
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

// Claims returns all networks, and the former values of those whose change is not
// certain yet: they are restored if the change fails.
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

// Claimant returns the network that is configured for a bridge, or that will be again
// if a change in progress fails.
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

// Put makes changes visible. It calls tell, unless nil, with those that are certain,
// before any other change or notification.
func (r *Registry[N, H]) Put(changes []Change[N], tell func(certain []Change[N])) {
	r.telling.Lock()
	defer r.telling.Unlock()
	certain := r.put(changes)
	if tell != nil {
		tell(certain)
	}
}

// put makes changes visible and returns those that are certain. Networks leave
// bridges before others take them.
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

// Edit changes one network by a function from value to value, and calls tell as Put
// does. It does nothing if there is no network of that name, or if the function
// returns its argument.
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

// Reserve makes a change visible that is not certain yet. There are no notifications
// of the network until Release, and its former value stays reserved.
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

// Host returns the state of the host.
func (r *Registry[N, H]) Host() H {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.host
}

// EditHost changes the state of the host by a function from value to value. It calls
// tell with both before any other change or notification.
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
