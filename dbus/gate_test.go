package dbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/virtfirewalld/virtfirewalld/polkit"
)

// fakeAuthority returns the answers that a test sets, and can hang.
type fakeAuthority struct {
	mu       sync.Mutex
	answers  map[string]polkit.Answer // by action, "!" before it when people are asked
	requests []string
	hang     bool
}

func (a *fakeAuthority) Check(ctx context.Context, r polkit.Request) (polkit.Answer, error) {
	a.mu.Lock()
	key := r.Action
	if r.Interactive {
		key = "!" + key
	}
	a.requests = append(a.requests, key)
	answer, hang := a.answers[key], a.hang
	a.mu.Unlock()
	if hang {
		<-ctx.Done()
		return polkit.Denied, ctx.Err()
	}
	return answer, nil
}

func (a *fakeAuthority) asked() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := strings.Join(a.requests, " ")
	a.requests = nil
	return s
}

// gateOf is a Gate that takes everybody for user 1000.
func gateOf(r *rig, t *testing.T, a Authority, callers ...string) *Gate {
	t.Helper()
	g := NewGate(r.client.Conn(), a)
	for _, c := range callers {
		_, err := g.users.get(t.Context(), c, func() (uint32, error) { return 1000, nil })
		must(t, err)
	}
	return g
}

// All checks run without interaction first; a person is asked only where nothing
// is denied, and only where the caller allows it.
func TestGateAsksInOrder(t *testing.T) {
	r := newRig(t)
	caller := r.served.Conn().Names()[0]
	a := &fakeAuthority{}
	g := gateOf(r, t, a, caller)
	for _, c := range []struct {
		answers     map[string]polkit.Answer
		interactive bool
		want        error
		asked       string
	}{
		{map[string]polkit.Answer{"x": polkit.Allowed, "y": polkit.Allowed}, false, nil, "x y"},
		{map[string]polkit.Answer{"x": polkit.Denied, "y": polkit.Allowed}, true, ErrAccessDenied, "x"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Denied}, true, ErrAccessDenied, "x y"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Allowed}, false, ErrInteractionRequired, "x y"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Allowed, "!x": polkit.Allowed}, true, nil, "x y !x"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Challenge, "!x": polkit.Allowed, "!y": polkit.Allowed}, true, nil, "x y !x !y"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Challenge, "!x": polkit.Dismissed}, true, ErrAccessDenied, "x y !x"},
		{map[string]polkit.Answer{"x": polkit.Challenge, "y": polkit.Allowed, "!x": polkit.Challenge}, true, ErrAccessDenied, "x y !x"},
	} {
		a.answers = c.answers
		err := g.Check(t.Context(), caller, c.interactive, []authzRequest{{action: "x"}, {action: "y"}})
		if !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("%v: %v, want %v", c.answers, err, c.want)
		}
		if got := a.asked(); got != c.asked {
			t.Errorf("%v: asked %q, want %q", c.answers, got, c.asked)
		}
	}
}

// The answer about reading is cached for readTTL, and other users never wait for
// one whose checks hang.
func TestGateCachesReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeAuthority{answers: map[string]polkit.Answer{ActionRead: polkit.Allowed}}
		g := NewGate(nil, a)
		for i := range 40 {
			_, err := g.users.get(t.Context(), fmt.Sprint(i), func() (uint32, error) { return uint32(1000 + i), nil })
			must(t, err)
		}
		read := []authzRequest{{action: ActionRead}}
		for range 5 {
			must(t, g.Check(t.Context(), "1", false, read))
		}
		if got := a.asked(); got != ActionRead {
			t.Errorf("asked %q", got)
		}
		time.Sleep(readTTL)
		a.answers = nil
		for range 2 {
			if err := g.Check(t.Context(), "1", false, read); !errors.Is(err, ErrAccessDenied) {
				t.Errorf("a reader who is denied: %v", err)
			}
		}
		a.hang = true
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 40 {
			wg.Go(func() {
				err := g.Check(t.Context(), fmt.Sprint(i), false, []authzRequest{{action: "x"}})
				if !errors.Is(err, ErrAccessDenied) || time.Since(start) != quietTimeout {
					t.Errorf("a hanging check ended after %v with %v", time.Since(start), err)
				}
			})
		}
		wg.Wait()
		if len(g.quiet.queues) != 0 || len(g.quiet.all) != 0 {
			t.Errorf("%d users have a queue", len(g.quiet.queues))
		}
	})
}

// A user's checks run one after the other, whatever others do.
func TestUserLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := newUserLimiter(2, 1)
		first, err := limiter.acquire(t.Context(), 1)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := limiter.acquire(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second question of one user: %v", err)
		}
		second, err := limiter.acquire(t.Context(), 2)
		must(t, err)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := limiter.acquire(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third question: %v", err)
		}
		first()
		third, err := limiter.acquire(t.Context(), 3)
		must(t, err)
		second()
		third()
		if len(limiter.queues) != 0 || len(limiter.all) != 0 {
			t.Errorf("%d users have a queue", len(limiter.queues))
		}
	})
}

// A user's denials fill no more than a few lines of the log, and skipped ones are
// counted.
func TestDenialLogIsLimited(t *testing.T) {
	d := newDenialLog(slog.New(slog.DiscardHandler))
	now := time.Now()
	written := func(user uint32, times int) (lines, skipped int) {
		for range times {
			if n, ok := d.allow(user, now); ok {
				lines++
				skipped += n
			}
		}
		return lines, skipped
	}
	if lines, _ := written(1, 1000); lines != denialLines {
		t.Errorf("%d lines at once", lines)
	}
	if lines, _ := written(2, 3); lines != 3 {
		t.Errorf("%d lines of another user", lines)
	}
	now = now.Add(3 * denialPause)
	if lines, skipped := written(1, 1000); lines != 3 || skipped != 1000-denialLines {
		t.Errorf("%d lines later, %d left out before", lines, skipped)
	}
	now = now.Add(1000 * denialPause)
	if lines, _ := written(1, 1000); lines != denialLines {
		t.Errorf("%d lines much later", lines)
	}
	for user := range uint32(2 * denialUsers) {
		d.allow(user, now)
	}
	if len(d.users) > denialUsers+1 {
		t.Errorf("%d users are remembered", len(d.users))
	}
}

// There is one diagnosis at a time; a second is refused at once.
func TestOneDiagnosisAtATime(t *testing.T) {
	r := newRig(t)
	m := r.server.methods[managerInterface]["Diagnose"]
	begun, release := make(chan struct{}), make(chan struct{})
	m.prepare = func(*call) (work, error) {
		return work{do: func(context.Context) ([]any, error) {
			close(begun)
			<-release
			return nil, refuse(errNotSupported, "the end")
		}}, nil
	}
	r.server.methods[managerInterface]["Diagnose"] = m
	done := make(chan error, 1)
	go func() { done <- r.call("Diagnose").Err }()
	<-begun
	wantError(t, r.call("Diagnose").Err, errLimitsExceeded, "one at a time")
	must(t, r.call("Reload").Err)
	close(release)
	wantError(t, <-done, errNotSupported, "the end")
}
