package service

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// eventTimeout bounds what one event of the host may cost.
const eventTimeout = 30 * time.Second

// changeLock is held by whoever changes networks, rules, files or zones' states. It
// is waited for as long as the caller's context lasts.
type changeLock struct {
	token chan struct{}
	// missed is triggered where work in the background was not done for want of the
	// lock.
	missed signal
}

func newChangeLock(missed signal) *changeLock {
	return &changeLock{token: make(chan struct{}, 1), missed: missed}
}

// acquire takes the lock, or gives up with the context.
func (l *changeLock) acquire(ctx context.Context) error {
	select {
	case l.token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change to end: %w", ctx.Err())
	}
}

// acquireAlways takes the lock for what must not be given up: a change that is made
// already.
func (l *changeLock) acquireAlways() { l.token <- struct{}{} }

func (l *changeLock) release() { <-l.token }

// during does one thing under the lock and with a time of its own.
func (l *changeLock) during(ctx context.Context, do func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if l.acquire(ctx) != nil {
		l.missed.trigger()
		return
	}
	defer l.release()
	do(ctx)
}

// networkLocks let one call at a time change a network. The zero value is ready.
type networkLocks struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed once the network is free
}

// acquire waits until no other call changes a network.
func (l *networkLocks) acquire(ctx context.Context, network string) (release func(), err error) {
	for {
		l.mu.Lock()
		before, taken := l.busy[network]
		if !taken {
			done := make(chan struct{})
			if l.busy == nil {
				l.busy = map[string]chan struct{}{}
			}
			l.busy[network] = done
			l.mu.Unlock()
			return func() { l.release(network, done) }, nil
		}
		l.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another change of network %q to end: %w", network, ctx.Err())
		}
	}
}

func (l *networkLocks) release(network string, done chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, network)
	close(done)
}
