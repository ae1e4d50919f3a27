package dbus

import (
	"context"
	"sync"
)

// turns bounds how many questions are with the authority at once, for all users
// and for each: the bus lets a connection await 128 answers, and one user's
// questions must not keep the others waiting. The users take turns.
type turns struct {
	all  chan struct{}
	each int

	mu    sync.Mutex
	users map[uint32]*line
}

// line is one user's questions.
type line struct {
	places  chan struct{}
	members int // who waits or has a place
}

func newTurns(all, each int) *turns {
	return &turns{all: make(chan struct{}, all), each: each, users: make(map[uint32]*line)}
}

// take waits for a turn, which done gives back.
func (t *turns) take(ctx context.Context, user uint32) (done func(), err error) {
	l := t.join(user)
	select {
	case l.places <- struct{}{}:
	case <-ctx.Done():
		t.part(user, l)
		return nil, ctx.Err()
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-l.places
		t.part(user, l)
		return nil, ctx.Err()
	}
	return func() {
		<-t.all
		<-l.places
		t.part(user, l)
	}, nil
}

func (t *turns) join(user uint32) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.users[user]
	if l == nil {
		l = &line{places: make(chan struct{}, t.each)}
		t.users[user] = l
	}
	l.members++
	return l
}

func (t *turns) part(user uint32, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.members--; l.members == 0 {
		delete(t.users, user)
	}
}
