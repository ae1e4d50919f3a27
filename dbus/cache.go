package dbus

import (
	"context"
	"sync"
	"time"
)

// maxCached bounds the memory that callers can fill by coming and going.
const maxCached = 1024

// cache holds answers about callers, by unique bus name, which the bus never
// assigns a second time. Concurrent lookups of one caller share one query.
type cache[V any] struct {
	ttl time.Duration // 0 for as long as there is room

	mu      sync.Mutex
	entries map[string]*cacheEntry[V]
}

type cacheEntry[V any] struct {
	done  chan struct{} // closed when there is an answer
	value V
	err   error
	until time.Time
}

func newCache[V any](ttl time.Duration) *cache[V] {
	return &cache[V]{ttl: ttl, entries: make(map[string]*cacheEntry[V])}
}

// get returns the answer for a caller, by query if it is not cached. Failures
// are not cached.
func (c *cache[V]) get(ctx context.Context, caller string, query func() (V, error)) (V, error) {
	e, isNew := c.entry(caller)
	if isNew {
		e.value, e.err = query()
		c.complete(caller, e)
		return e.value, e.err
	}
	select {
	case <-e.done:
		return e.value, e.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// entry returns the entry of a caller. If it is new, it has no answer yet: the
// goroutine that got it has to query, and then call complete.
func (c *cache[V]) entry(caller string) (e *cacheEntry[V], isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[caller]
	if ok && (e.until.IsZero() || time.Now().Before(e.until)) {
		return e, false
	}
	if len(c.entries) >= maxCached {
		clear(c.entries) // lookups that still wait hold their entry themselves
	}
	e = &cacheEntry[V]{done: make(chan struct{})}
	c.entries[caller] = e
	return e, true
}

// complete publishes the answer in e to all lookups that wait for it.
func (c *cache[V]) complete(caller string, e *cacheEntry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.done)
	switch {
	case e.err != nil && c.entries[caller] == e:
		delete(c.entries, caller)
	case c.ttl > 0:
		e.until = time.Now().Add(c.ttl)
	}
}
