package dbus

import (
	"context"
	"sync"
)

const (
	// maxPending limits the calls that wait or run in one pool.
	maxPending = 512
	// maxPendingEach is the bus's own default limit of calls that await a
	// reply. The bus does not apply it to calls that want none.
	maxPendingEach = 128
	// maxChangesEach is less, since a call that waits for authorisation may
	// hold a document of a megabyte.
	maxChangesEach = 32
	// maxRunning limits the calls of a pool that run at the same time.
	maxRunning = 16
	// maxOthersRunning keeps processor time for root while others send many calls.
	maxOthersRunning = 4
)

// pool limits the calls that are pending and running. godbus starts a goroutine
// for each call that arrives, so that nothing else limits them.
type pool struct {
	pendingEach int
	running     chan struct{}

	mu      sync.Mutex
	pending int
	each    map[string]int
}

// pools are one for reads and one for the rest, so that neither can starve the
// other.
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

// enter admits a call of a connection or user, or returns an error where there
// are too many.
func (p *pool) enter(caller string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.each[caller] >= p.pendingEach {
		return refuse(errLimitsExceeded, "%d of your calls are pending already: wait for their answers", p.pendingEach)
	}
	if p.pending >= maxPending {
		return refuse(errLimitsExceeded, "%d calls are pending already: try again in a moment", maxPending)
	}
	p.pending++
	p.each[caller]++
	return nil
}

func (p *pool) leave(caller string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.each[caller]--; p.each[caller] == 0 {
		delete(p.each, caller)
	}
}

// start waits for a slot among the running calls, which stop releases.
func (p *pool) start(ctx context.Context) error {
	select {
	case p.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		return refuse(errLimitsExceeded, "%d calls are being worked on, and none ended in time: try again in a moment", cap(p.running))
	}
}

func (p *pool) stop() { <-p.running }
