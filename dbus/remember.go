package dbus

import (
	"context"
	"sync"
	"time"
)

// maxRemembered bounds the memory that callers can take by coming and going.
const maxRemembered = 1024

// memory keeps answers about callers, by unique bus name, which the bus never
// gives a second time. Those who want the same answer at once share one question.
type memory[V any] struct {
	lasts time.Duration // 0 for as long as there is room

	mu      sync.Mutex
	answers map[string]*remembered[V]
}

type remembered[V any] struct {
	done  chan struct{} // closed when there is an answer
	value V
	err   error
	until time.Time
}

func newMemory[V any](lasts time.Duration) *memory[V] {
	return &memory[V]{lasts: lasts, answers: make(map[string]*remembered[V])}
}

// get gives the answer for a caller, which question finds out. Failures are not
// remembered.
func (m *memory[V]) get(ctx context.Context, caller string, question func() (V, error)) (V, error) {
	r, asking := m.entry(caller)
	if asking {
		r.value, r.err = question()
		m.answered(caller, r)
		return r.value, r.err
	}
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// entry is what is known of a caller; asking says that it is on us to find out.
func (m *memory[V]) entry(caller string) (r *remembered[V], asking bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.answers[caller]
	if ok && (r.until.IsZero() || time.Now().Before(r.until)) {
		return r, false
	}
	if len(m.answers) >= maxRemembered {
		clear(m.answers) // who still waits for one of them has it in hand
	}
	r = &remembered[V]{done: make(chan struct{})}
	m.answers[caller] = r
	return r, true
}

func (m *memory[V]) answered(caller string, r *remembered[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(r.done)
	switch {
	case r.err != nil && m.answers[caller] == r:
		delete(m.answers, caller)
	case m.lasts > 0:
		r.until = time.Now().Add(m.lasts)
	}
}
