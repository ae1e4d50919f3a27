package zones

import (
	"context"
	"sync"
	"time"
)

const (
	// aMoment is what firewalld may take for an answer on a busy host: who gives
	// up sooner has learnt nothing of firewalld. It leaves a call that takes one
	// second at most some time for its other steps.
	aMoment = 900 * time.Millisecond
	// watchPause is how often an impatient question looks for signs of life.
	watchPause = 20 * time.Millisecond
)

type impatience struct{}

// Impatient returns a context whose questions are given up once firewalld has
// said nothing at all for a moment. Others wait longer, as one that is through
// with a start or a reload is slow to answer.
func Impatient(ctx context.Context) context.Context {
	return context.WithValue(ctx, impatience{}, true)
}

// watch ends an impatient question with a silence. stop waits for its end.
func (t *talk) watch(ctx context.Context) (watched context.Context, stop func()) {
	if impatient, _ := ctx.Value(impatience{}).(bool); !impatient {
		return ctx, func() {}
	}
	watched, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	over := make(chan struct{})
	done.Go(func() {
		look := time.NewTicker(watchPause)
		defer look.Stop()
		for {
			select {
			case <-over:
				return
			case <-watched.Done():
				return
			case <-look.C:
				if t.unanswered() >= aMoment {
					cancel(ErrSilent{Limit: aMoment})
				}
			}
		}
	})
	return watched, func() {
		close(over)
		done.Wait()
	}
}

// talk knows which questions firewalld has not answered yet. It answers one
// after another, so that the time since its last answer, or since the oldest
// question if that is later, says for how long it has been busy with something
// else, or stuck.
type talk struct {
	mu   sync.Mutex
	last int
	open map[int]time.Time
	// answer is when the last answer came.
	answer time.Time
	// gaveUp is when the oldest question was asked that nobody waits for any
	// more, if nothing was answered since; else zero.
	gaveUp time.Time
}

// ask notes a question. Its caller reports whether it was answered.
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
			t.gaveUp, t.answer = time.Time{}, time.Now()
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
	if oldest.Before(t.answer) {
		oldest = t.answer
	}
	return time.Since(oldest)
}
