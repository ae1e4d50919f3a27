package dbus

import (
	"context"
	"sync"
)

// maxQueued limits the queued events: at so many, the bus has not read for a
// long time.
const maxQueued = 1 << 16

// queue holds events in order, from the goroutines that add them, which never
// wait, to the one that emits them. It also holds marks, which notify a waiter
// that all events before them are emitted.
type queue[T any] struct {
	mu      sync.Mutex
	items   []item[T]
	closed  bool
	trigger chan struct{} // holds one token while there may be items
}

type item[T any] struct {
	event T
	mark  chan struct{} // nil for an event
}

func newQueue[T any]() *queue[T] {
	return &queue[T]{trigger: make(chan struct{}, 1)}
}

// add appends an item. It returns false when the queue is full or closed.
func (q *queue[T]) add(i item[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.items) >= maxQueued {
		return false
	}
	q.items = append(q.items, i)
	q.signal()
	return true
}

func (q *queue[T]) signal() {
	select {
	case q.trigger <- struct{}{}:
	default:
	}
}

// flush waits until everything that is in the queue now is emitted.
func (q *queue[T]) flush(ctx context.Context) {
	mark := make(chan struct{})
	if !q.add(item[T]{mark: mark}) {
		return
	}
	select {
	case <-mark:
	case <-ctx.Done():
	}
}

// close makes each return once the queue is empty.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// each calls emit for one event after the other, until the queue is closed and
// empty.
func (q *queue[T]) each(emit func(T)) {
	for range q.trigger {
		q.mu.Lock()
		batch, closed := q.items, q.closed
		q.items = nil
		q.mu.Unlock()
		for _, i := range batch {
			if i.mark != nil {
				close(i.mark)
				continue
			}
			emit(i.event)
		}
		if closed {
			return
		}
	}
}
