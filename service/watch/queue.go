package watch

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// maxQueue is how many undelivered changes are kept one by one. Beyond that the
// consumer receives the difference between what was delivered and the current state.
const maxQueue = 16384

// queue accepts changes from the kernel's reader without ever blocking it, and
// delivers them to the consumer in order.
type queue struct {
	out chan Change

	mu        sync.Mutex
	trigger   chan struct{} // of size 1: something is in pending
	started   bool          // before start, changes are dropped
	pending   []Change      // undelivered, oldest first
	delivered map[int]Link  // what the consumer knows
	latest    map[int]Link  // what it will know once pending is delivered
	limit     int
}

func newQueue() *queue {
	return &queue{out: make(chan Change), trigger: make(chan struct{}, 1), limit: maxQueue}
}

// start starts delivery, from the current state of the cache.
func (q *queue) start(c *cache) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delivered, q.latest, q.started = maps.Clone(c.links), maps.Clone(c.links), true
}

func (q *queue) close() { close(q.out) }

// push adds a change. It is called with the cache locked, in the order of the
// kernel's messages.
func (q *queue) push(c Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.started {
		return
	}
	if n := len(q.pending); n > 0 && q.pending[n-1] == c && c.Kind >= RoutesChanged {
		return // the kernel sends a setting of all links once for each of them
	}
	apply(q.latest, c)
	if q.pending = append(q.pending, c); len(q.pending) > q.limit {
		q.pending = append(difference(q.delivered, q.latest), Change{Kind: RoutesChanged}, Change{Kind: ForwardingOff})
		q.limit = max(maxQueue, 2*len(q.pending))
	}
	select {
	case q.trigger <- struct{}{}:
	default:
	}
}

func (q *queue) pop() (Change, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		q.pending = nil
		return Change{}, false
	}
	c := q.pending[0]
	q.pending = q.pending[1:]
	apply(q.delivered, c)
	return c, true
}

// deliver hands changes to the consumer until ctx ends.
func (q *queue) deliver(ctx context.Context) {
	for {
		c, ok := q.pop()
		if !ok {
			select {
			case <-q.trigger:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case q.out <- c:
		case <-ctx.Done():
			return
		}
	}
}

func apply(links map[int]Link, c Change) {
	switch c.Kind {
	case Gone:
		delete(links, c.Old.Index)
	case Appeared, Renamed, Updated:
		links[c.New.Index] = c.New
	}
}

// difference is what leads from one state to another: first what goes, then
// what changes, then what comes. Links are in the order of their indexes.
func difference(from, to map[int]Link) []Change {
	var gone, changed, appeared []Change
	for _, index := range slices.Sorted(maps.Keys(from)) {
		old := from[index]
		l, is := to[index]
		switch {
		case !is:
			gone = append(gone, Change{Kind: Gone, Old: old})
		case l.Name != old.Name:
			changed = append(changed, Change{Kind: Renamed, Old: old, New: l})
		case l != old:
			changed = append(changed, Change{Kind: Updated, Old: old, New: l})
		}
	}
	for _, index := range slices.Sorted(maps.Keys(to)) {
		if _, was := from[index]; !was {
			appeared = append(appeared, Change{Kind: Appeared, New: to[index]})
		}
	}
	return slices.Concat(gone, changed, appeared)
}
