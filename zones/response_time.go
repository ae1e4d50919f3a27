package zones

import (
	"context"
	"sync"
	"time"
)

const (
	// impatientLimit is how long firewalld may take to answer on a busy host: a
	// caller that gives up sooner has learnt nothing about firewalld. It leaves a
	// call that takes one second at most some time for its other steps.
	impatientLimit = 900 * time.Millisecond
	// silencePoll is how often a call that waits checks for answers to others.
	silencePoll = 20 * time.Millisecond
)

type impatience struct{}

// Impatient returns a context whose calls end with ErrSilent once firewalld has
// answered nothing at all for impatientLimit. Other calls wait longer, since
// firewalld is slow to answer after a start or a reload.
func Impatient(ctx context.Context) context.Context {
	return context.WithValue(ctx, impatience{}, true)
}

// limitSilence returns a context that ends with ErrSilent once firewalld has
// answered nothing for so long since now, or an impatient call once it has answered
// nothing for impatientLimit, since whenever. stop ends the watching, and waits for
// that.
func (t *responseTimes) limitSilence(ctx context.Context, limit time.Duration) (limited context.Context, stop func()) {
	begin := time.Now()
	silence := func() time.Duration { return t.sinceAnswer(begin) }
	if impatient, _ := ctx.Value(impatience{}).(bool); impatient && limit > impatientLimit {
		limit, silence = impatientLimit, t.unanswered
	}
	limited, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	stopped := make(chan struct{})
	done.Go(func() {
		tick := time.NewTicker(silencePoll)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-limited.Done():
				return
			case <-tick.C:
				if silence() >= limit {
					cancel(ErrSilent{Limit: limit})
				}
			}
		}
	})
	return limited, func() {
		close(stopped)
		done.Wait()
	}
}

// responseTimes records the calls that firewalld has not answered yet. It answers
// one after another, so that the time since its last answer, or since the oldest
// call if that is later, is how long it has been busy with something else, or
// stuck.
type responseTimes struct {
	mu     sync.Mutex
	lastID int
	open   map[int]time.Time // the start of each call that waits
	// lastAnswer is when the last answer came.
	lastAnswer time.Time
	// abandoned is the start of the oldest call that ended unanswered, if there
	// was no answer since; else zero.
	abandoned time.Time
}

// callStarted records a call. Its caller must call done when the call ends.
func (t *responseTimes) callStarted() (done func(answered bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[int]time.Time)
	}
	t.lastID++
	id, begin := t.lastID, time.Now()
	t.open[id] = begin
	return func(answered bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, id)
		switch {
		case answered:
			t.abandoned, t.lastAnswer = time.Time{}, time.Now()
		case time.Since(begin) < impatientLimit:
			// too short to tell anything about firewalld
		case t.abandoned.IsZero() || begin.Before(t.abandoned):
			t.abandoned = begin
		}
	}
}

// reset drops the calls that an earlier firewalld left unanswered.
func (t *responseTimes) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abandoned = time.Time{}
}

// sinceAnswer returns how long ago the last answer came, or a call began if that was
// later.
func (t *responseTimes) sinceAnswer(begin time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if begin.Before(t.lastAnswer) {
		begin = t.lastAnswer
	}
	return time.Since(begin)
}

func (t *responseTimes) unanswered() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := t.abandoned
	for _, begin := range t.open {
		if oldest.IsZero() || begin.Before(oldest) {
			oldest = begin
		}
	}
	if oldest.IsZero() {
		return 0
	}
	if oldest.Before(t.lastAnswer) {
		oldest = t.lastAnswer
	}
	return time.Since(oldest)
}
