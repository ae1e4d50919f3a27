package watch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

func watchLock(t *testing.T) (l *Lock, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "xtables.lock")
	l, err := WatchLock(path, nil)
	watchtest.Must(t, err)
	t.Cleanup(func() { watchtest.Must(t, l.Close()) })
	return l, path
}

// call does what iptables-legacy does with its lock.
func call(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	watchtest.Must(t, err)
	watchtest.Must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	watchtest.Must(t, f.Close())
}

func (l *Lock) awaitTouch(t *testing.T, what string) {
	t.Helper()
	select {
	case <-l.Touched():
	case <-time.After(10 * time.Second):
		t.Fatalf("%s is not told", what)
	}
}

// quiet drains late reports of earlier calls, and fails if doing something is
// reported.
func (l *Lock) quiet(t *testing.T, what string, do func()) {
	t.Helper()
	for rest := true; rest; {
		select {
		case <-l.Touched():
		case <-time.After(50 * time.Millisecond):
			rest = false
		}
	}
	do()
	select {
	case <-l.Touched():
		t.Errorf("%s is told", what)
	case <-time.After(50 * time.Millisecond):
	}
}

// TestLockTellsOfCalls whether the file is there from the beginning, is made by
// the first call, or is replaced or deleted in between.
func TestLockTellsOfCalls(t *testing.T) {
	l, path := watchLock(t)
	replace := func() {
		watchtest.Must(t, os.WriteFile(path+".new", nil, 0o600))
		watchtest.Must(t, os.Rename(path+".new", path))
	}
	held, err := os.OpenFile(path+".held", os.O_CREATE, 0o600)
	watchtest.Must(t, err)
	defer held.Close()
	for _, before := range []struct {
		what string
		do   func()
	}{
		{"a call that makes the file", func() {}},
		{"a call after one", func() {}},
		{"a call after the file was replaced", replace},
		{"a call after the file was replaced again", replace},
		{"a call after the file was deleted", func() { watchtest.Must(t, os.Remove(path)) }},
		{"a call after the file was moved away", func() { watchtest.Must(t, os.Rename(path, path+".old")) }},
		{"a call after a file that is open came", func() { watchtest.Must(t, os.Rename(path+".held", path)) }},
		{"a call after it went, still open", func() { watchtest.Must(t, os.Remove(path)) }},
	} {
		before.do()
		l.quiet(t, "nothing", func() {})
		call(t, path)
		l.awaitTouch(t, before.what)
	}
}

// TestLockSleeps over what happens in its folder once there is a file.
func TestLockSleeps(t *testing.T) {
	l, path := watchLock(t)
	other := filepath.Join(filepath.Dir(path), "other")
	l.quiet(t, "another file", func() { call(t, other) })
	call(t, path)
	l.awaitTouch(t, "a call")
	l.quiet(t, "another file", func() { call(t, other) })
	if l.folder >= 0 {
		t.Error("the folder is still watched")
	}
	l.quiet(t, "a file that went", func() { watchtest.Must(t, os.Remove(other)) })
}

func TestLockNeedsItsFolder(t *testing.T) {
	if l, err := WatchLock(filepath.Join(t.TempDir(), "none", "xtables.lock"), nil); err == nil {
		t.Error("it is watched", l.Close())
	}
}
