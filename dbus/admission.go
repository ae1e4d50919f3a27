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
	// maxChangesEach is less, since who waits for an authorisation may hold a
	// document of a megabyte.
	maxChangesEach = 32
	// maxRunning calls of a pool are worked on at the same time.
	maxRunning = 16
	// maxOthersRunning leaves root the processor while others send much.
	maxOthersRunning = 4
)

// pool admits calls. godbus starts a goroutine for each call that arrives, so
// that nothing else bounds them.
type pool struct {
	pendingEach int
	running     chan struct{}

	mu      sync.Mutex
	pending int
	each    map[string]int
}

// pools are one for reading and one for the rest, so that neither can shut out
// the other.
type pools struct{ reads, changes *pool }

// rootPools count by connection, otherPools by user.
func rootPools() pools {
	return pools{reads: newPool(maxPendingEach, maxRunning), changes: newPool(maxPendingEach, maxRunning)}
}

func otherPools() pools {
	return pools{reads: newPool(maxPendingEach, maxOthersRunning), changes: newPool(maxChangesEach, maxOthersRunning)}
}

func newPool(pendingEach, running int) *pool {
	return &pool{pendingEach: pendingEach, running: make(chan struct{}, running), each: make(map[string]int)}
}

// enter admits a call of a connection or user, or says that there are too many.
func (p *pool) enter(who string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.each[who] >= p.pendingEach {
		return refuse(errLimitsExceeded, "%d of your calls are pending already: wait for their answers", p.pendingEach)
	}
	if p.pending >= maxPending {
		return refuse(errLimitsExceeded, "%d calls are pending already: try again in a moment", maxPending)
	}
	p.pending++
	p.each[who]++
	return nil
}

func (p *pool) leave(who string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.each[who]--; p.each[who] == 0 {
		delete(p.each, who)
	}
}

// start waits for a place among the running calls, which stop gives back.
func (p *pool) start(ctx context.Context) error {
	select {
	case p.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		return refuse(errLimitsExceeded, "%d calls are being worked on, and none ended in time: try again in a moment", cap(p.running))
	}
}

func (p *pool) stop() { <-p.running }
