package watch

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// dump is what a running dump has found, and what notifications were about
// meanwhile: a notification is newer than the dump, or another one follows it.
type dump[K comparable, V any] struct {
	found   map[K]V
	touched map[K]bool
}

func (d *dump[K, V]) begin()  { d.found, d.touched = make(map[K]V), make(map[K]bool) }
func (d *dump[K, V]) end()    { d.found, d.touched = nil, nil }
func (d *dump[K, V]) forget() { clear(d.found) }

func (d *dump[K, V]) touch(k K) {
	if d.touched != nil {
		d.touched[k] = true
	}
}

// cache is the current state. Only the session writes it.
type cache struct {
	notify func(Change)

	mu        sync.RWMutex
	links     map[int]Link
	names     map[string]int
	altNames  map[string]int
	addresses map[Address]bool
	sorted    []Address // of addresses; nil when they changed since
	routes    []Route
}

func newCache(notify func(Change)) *cache {
	return &cache{notify: notify, links: make(map[int]Link), names: make(map[string]int),
		altNames: make(map[string]int), addresses: make(map[Address]bool)}
}

func (c *cache) link(name string) (Link, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l, ok := c.links[c.names[name]]
	return l, ok
}

// linkByName prefers an own name: an alternative one can be out of date if its link
// is down.
func (c *cache) linkByName(name string) (Link, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	index, ok := c.names[name]
	if !ok {
		index = c.altNames[name]
	}
	l, ok := c.links[index]
	return l, ok
}

func (c *cache) linkByIndex(index int) (Link, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l, ok := c.links[index]
	return l, ok
}

func (c *cache) allLinks() []Link {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.SortedFunc(maps.Values(c.links), func(a, b Link) int { return a.Index - b.Index })
}

func (c *cache) allAddresses() []Address {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sorted == nil {
		c.sorted = slices.SortedFunc(maps.Keys(c.addresses), func(a, b Address) int {
			return cmp.Or(a.Index-b.Index, a.Prefix.Compare(b.Prefix), a.Peer.Compare(b.Peer))
		})
	}
	return c.sorted // never changed, only replaced
}

func (c *cache) defaultRoutes() []Route {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.routes)
}

// linkEvent handles a notification about one link and reports whether default
// routes may have been removed with it.
func (c *cache) linkEvent(l Link, gone bool) (routes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.links[l.Index]
	if gone {
		c.removeLink(l.Index)
	} else {
		c.setLink(l)
	}
	return (gone || old.Up != l.Up) && c.hasRoute(l.Index)
}

// addressEvent handles a notification about one address and reports whether default
// routes may have been removed with it.
func (c *cache) addressEvent(a Address, gone bool) (routes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sorted = nil
	if gone {
		delete(c.addresses, a)
		return c.hasRoute(a.Index)
	}
	c.addresses[a] = true
	return false
}

// advertised notifies of a router advertisement on a known link.
func (c *cache) advertised(index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, known := c.links[index]; known {
		c.notify(Change{Kind: Advertised, New: l})
	}
}

// forwardingOff notifies that forwarding may be off.
func (c *cache) forwardingOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify(Change{Kind: ForwardingOff})
}

// replaceLinks applies the result of a dump. Removals come first, so that no
// notifications ever have a name on two links.
func (c *cache) replaceLinks(d dump[int, Link]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for index := range c.links {
		if _, found := d.found[index]; !found && !d.touched[index] {
			c.removeLink(index)
		}
	}
	for _, known := range []bool{true, false} {
		for index, l := range d.found {
			if _, is := c.links[index]; is == known && !d.touched[index] {
				c.setLink(l)
			}
		}
	}
}

func (c *cache) replaceAddresses(d dump[Address, Address]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sorted = nil
	for a := range c.addresses {
		if _, found := d.found[a]; !found && !d.touched[a] {
			delete(c.addresses, a)
		}
	}
	for a := range d.found {
		if !d.touched[a] {
			c.addresses[a] = true
		}
	}
}

func (c *cache) replaceRoutes(routes []Route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(routes, c.routes) {
		c.routes = routes
		c.notify(Change{Kind: RoutesChanged})
	}
}

func (c *cache) hasRoute(index int) bool {
	return slices.ContainsFunc(c.routes, func(r Route) bool { return r.Index == index })
}

func (c *cache) setLink(l Link) {
	old, known := c.links[l.Index]
	if known && old == l {
		return
	}
	change := Change{Kind: Updated, Old: old, New: l}
	switch {
	case !known:
		change.Kind = Appeared
	case old.Name != l.Name:
		change.Kind = Renamed
		c.dropName(old)
	}
	c.links[l.Index], c.names[l.Name] = l, l.Index
	c.dropAltNames(old)
	for _, name := range l.AltNames.List() {
		c.altNames[name] = l.Index
	}
	c.notify(change)
}

func (c *cache) removeLink(index int) {
	old, known := c.links[index]
	if !known {
		return
	}
	delete(c.links, index)
	c.dropName(old)
	c.dropAltNames(old)
	c.sorted = nil
	maps.DeleteFunc(c.addresses, func(a Address, _ bool) bool { return a.Index == index })
	c.notify(Change{Kind: Gone, Old: old})
}

// dropName removes a name, unless another link has it by now.
func (c *cache) dropName(l Link) {
	if c.names[l.Name] == l.Index {
		delete(c.names, l.Name)
	}
}

func (c *cache) dropAltNames(l Link) {
	for _, name := range l.AltNames.List() {
		if c.altNames[name] == l.Index {
			delete(c.altNames, name)
		}
	}
}
