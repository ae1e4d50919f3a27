package servicetest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// Links are the host's in-memory interfaces, which outlive the service. A name
// belongs to one link alone.
type Links struct {
	mu        sync.Mutex
	last      int // the highest index that was ever assigned
	links     map[int]watch.Link
	addresses []watch.Address
	routes    []watch.Route
	changes   chan watch.Change
	broken    error // the error of each query
}

// NewLinks returns a host that has lo and eth0, which carries its default route.
func NewLinks() *Links {
	l := &Links{links: map[int]watch.Link{}, changes: make(chan watch.Change, 4096)}
	l.Add(watch.Link{Name: "lo", Up: true})
	eth0 := l.Add(watch.Link{Name: "eth0", Up: true})
	l.Address(eth0, "203.0.113.5/24")
	l.Route(watch.Route{Index: eth0, Gateway: netip.MustParseAddr("203.0.113.1")})
	return l
}

// Add adds a link and returns its index.
func (l *Links) Add(link watch.Link) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if taken, ok := l.named(link.Name); ok {
		panic("interface " + taken.Name + " exists")
	}
	l.last++
	link.Index = l.last
	l.links[link.Index] = link
	l.changes <- watch.Change{Kind: watch.Appeared, New: link}
	return link.Index
}

// Bridge adds a bridge and returns its index.
func (l *Links) Bridge(name string) int { return l.Add(watch.Link{Name: name, Bridge: true, Up: true}) }

// Delete deletes a link with its addresses and routes.
func (l *Links) Delete(index int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.links[index]
	delete(l.links, index)
	l.addresses = slices.DeleteFunc(l.addresses, func(a watch.Address) bool { return a.Index == index })
	l.routes = slices.DeleteFunc(l.routes, func(r watch.Route) bool { return r.Index == index })
	l.changes <- watch.Change{Kind: watch.Gone, Old: old}
}

// Change changes a link.
func (l *Links) Change(index int, f func(*watch.Link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.links[index]
	next := old
	f(&next)
	if taken, ok := l.named(next.Name); ok && taken.Index != index {
		panic("interface " + taken.Name + " exists")
	}
	l.links[index] = next
	kind := watch.Updated
	if old.Name != next.Name {
		kind = watch.Renamed
	}
	l.changes <- watch.Change{Kind: kind, Old: old, New: next}
}

// Rename renames a link.
func (l *Links) Rename(index int, name string) {
	l.Change(index, func(link *watch.Link) { link.Name = name })
}

// Address adds an address to a link.
func (l *Links) Address(index int, prefix string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses = append(l.addresses, watch.Address{Index: index, Prefix: netip.MustParsePrefix(prefix)})
}

// Route adds a default route.
func (l *Links) Route(r watch.Route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routes = append(l.routes, r)
	l.changes <- watch.Change{Kind: watch.RoutesChanged}
}

// Tell reports a change that is not a link's.
func (l *Links) Tell(c watch.Change) { l.changes <- c }

// Break makes each query fail with an error, nil for none.
func (l *Links) Break(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

func (l *Links) named(name string) (watch.Link, bool) {
	for _, link := range l.links {
		if link.Name == name || slices.Contains(link.AltNames.List(), name) {
			return link, true
		}
	}
	return watch.Link{}, false
}

// Query looks a link up by own or alternative name.
func (l *Links) Query(name string) (watch.Link, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, ok := l.named(name)
	return link, ok, l.broken
}

// QueryIndex looks a link up by index.
func (l *Links) QueryIndex(index int) (watch.Link, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, ok := l.links[index]
	return link, ok, l.broken
}

// LinkByName returns what the link monitor knows of a name.
func (l *Links) LinkByName(name string) (watch.Link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.named(name)
}

// LinkByIndex returns what the link monitor knows of an index.
func (l *Links) LinkByIndex(index int) (watch.Link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, ok := l.links[index]
	return link, ok
}

// Links returns all links.
func (l *Links) Links() []watch.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.links))
}

// Addresses returns all addresses.
func (l *Links) Addresses() []watch.Address {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.addresses)
}

// DefaultRoutes returns all default routes.
func (l *Links) DefaultRoutes() []watch.Route {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.routes)
}

// Sync returns at once: there is no cache to wait for.
func (l *Links) Sync(context.Context) error { return nil }

// Changes returns the channel of changes.
func (l *Links) Changes() <-chan watch.Change { return l.changes }
