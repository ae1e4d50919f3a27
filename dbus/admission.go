package dbus

import (
	"context"
	"sync"
)

const (
	// maxPending bounds what waits or runs in one pool.
	maxPending = 512
	// maxPendingEach is the bus's own default bound of calls that await a
	// reply, which does not hold for calls that want none.
	maxPendingEach = 128
	// maxRunning calls of a pool are worked on at the same time.
	maxRunning = 16
)

// pool admits calls. godbus starts a goroutine for each call that arrives, so
// that nothing else bounds them. There is one pool for reading, which anybody
// may do, and one for the rest, so that neither can shut out the other.
type pool struct {
	running chan struct{}

	mu      sync.Mutex
	pending int
	each    map[string]int
}

func newPool() *pool {
	return &pool{running: make(chan struct{}, maxRunning), each: make(map[string]int)}
}

// enter admits a call of sender, or says that there are too many.
func (p *pool) enter(sender string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.each[sender] >= maxPendingEach {
		return refuse(errLimitsExceeded, "%d of your calls are pending already: wait for their answers", maxPendingEach)
	}
	if p.pending >= maxPending {
		return refuse(errLimitsExceeded, "%d calls are pending already: try again in a moment", maxPending)
	}
	p.pending++
	p.each[sender]++
	return nil
}

func (p *pool) leave(sender string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.each[sender]--; p.each[sender] == 0 {
		delete(p.each, sender)
	}
}

// start waits for a place among the running calls, which stop gives back.
func (p *pool) start(ctx context.Context) error {
	select {
	case p.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		return refuse(errLimitsExceeded, "%d calls are being worked on, and none ended in time: try again in a moment", maxRunning)
	}
}

func (p *pool) stop() { <-p.running }
