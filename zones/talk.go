package zones

import (
	"sync"
	"time"
)

// aMoment is what firewalld may take for an answer on a busy host: who gives up
// sooner has learnt nothing of firewalld.
const aMoment = time.Second

// talk knows which questions firewalld has not answered yet. It answers one
// after another, so that the oldest of them says for how long it has been busy
// with something else, or stuck.
type talk struct {
	mu   sync.Mutex
	last int
	open map[int]time.Time
	// gaveUp is when the oldest question was asked that nobody waits for any
	// more, if nothing was answered since; else zero.
	gaveUp time.Time
}

// ask notes a question. Its caller tells whether it was answered.
func (t *talk) ask() (done func(answered bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[int]time.Time)
	}
	t.last++
	id, begin := t.last, time.Now()
	t.open[id] = begin
	return func(answered bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, id)
		switch {
		case answered:
			t.gaveUp = time.Time{}
		case time.Since(begin) < aMoment:
			// nothing is known of what firewalld would have done
		case t.gaveUp.IsZero() || begin.Before(t.gaveUp):
			t.gaveUp = begin
		}
	}
}

// begin forgets what another firewalld left unanswered.
func (t *talk) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gaveUp = time.Time{}
}

func (t *talk) unanswered() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := t.gaveUp
	for _, begin := range t.open {
		if oldest.IsZero() || begin.Before(oldest) {
			oldest = begin
		}
	}
	if oldest.IsZero() {
		return 0
	}
	return time.Since(oldest)
}
