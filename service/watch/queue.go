package watch

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// longestQueue is how many undelivered changes are kept one by one. Behind that
// a consumer gets the difference between what it was told and what is.
const longestQueue = 16384

// queue takes changes from the kernel's reader without ever making it wait, and
// hands them to the consumer in order.
type queue struct {
	out chan Change

	mu      sync.Mutex
	trigger chan struct{} // of size 1: something is in pending
	on      bool          // before start nothing is told
	pending []Change      // undelivered, oldest first
	told    map[int]Link  // what the consumer knows
	now     map[int]Link  // what it will know when ppending is delivered
	limit   int
}

func newQueue() *queue {
	return &queue{out: make(chan Change), trigger: make(chan struct{}, 1), limit: longestQueue}
}

// start begins telling, from the cache as it is.
func (q *queue) start(c *cache) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told, q.now, q.on = maps.Clone(c.links), maps.Clone(c.links), true
}

func (q *queue) close() { close(q.out) }

// push adds a change. It is called with the cache locked, in the order of the
// kernel's messages.
func (q *queue) push(c Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.on {
		return
	}
	if n := len(q.pending); n > 0 && q.pending[n-1] == c && c.Kind >= RoutesChanged {
		return // the kernel tells of a setting of all links once for each of them
	}
	apply(q.now, c)
	if q.pending = append(q.pending, c); len(q.pending) > q.limit {
		q.pending = append(difference(q.told, q.now), Change{Kind: RoutesChanged}, Change{Kind: ForwardingOff})
		q.limit = max(longestQueue, 2*len(q.pending))
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
	apply(q.told, c)
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
