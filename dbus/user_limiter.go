package dbus

import (
	"context"
	"sync"
)

// userLimiter bounds how many checks are with the authority at once, in all and
// per user: the bus lets a connection await 128 answers, and one user's checks
// must not keep the others waiting. Each user has a queue.
type userLimiter struct {
	all     chan struct{}
	perUser int

	mu     sync.Mutex
	queues map[uint32]*userQueue
}

// userQueue holds one user's checks.
type userQueue struct {
	slots  chan struct{}
	checks int // those that wait for a slot or hold one
}

func newUserLimiter(all, perUser int) *userLimiter {
	return &userLimiter{all: make(chan struct{}, all), perUser: perUser, queues: make(map[uint32]*userQueue)}
}

// acquire waits for a slot of the user's, then for one of all. The caller must
// call release once its check is done.
func (l *userLimiter) acquire(ctx context.Context, user uint32) (release func(), err error) {
	q := l.join(user)
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		l.leave(user, q)
		return nil, ctx.Err()
	}
	select {
	case l.all <- struct{}{}:
	case <-ctx.Done():
		<-q.slots
		l.leave(user, q)
		return nil, ctx.Err()
	}
	return func() {
		<-l.all
		<-q.slots
		l.leave(user, q)
	}, nil
}

func (l *userLimiter) join(user uint32) *userQueue {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queues[user]
	if q == nil {
		q = &userQueue{slots: make(chan struct{}, l.perUser)}
		l.queues[user] = q
	}
	q.checks++
	return q
}

func (l *userLimiter) leave(user uint32, q *userQueue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.checks--; q.checks == 0 {
		delete(l.queues, user)
	}
}
