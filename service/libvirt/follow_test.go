package libvirt

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFollow makes and removes libvirt's directory step by step: no step that
// leads to a lock goes unseen, and looking at the lock is no such step.
func TestFollow(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "libvirt", "network")
	d := New(dir)
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan struct{}, 100), make(chan error)
	go func() { done <- d.Follow(ctx, func() { changes <- struct{}{} }) }()
	told := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of: %s", what)
		}
		// One step may be more than one event.
		for quiet := false; !quiet; {
			select {
			case <-changes:
			case <-time.After(200 * time.Millisecond):
				quiet = true
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pid := filepath.Join(dir, "driver.pid")
	told("the beginning")
	for range 2 {
		must(os.MkdirAll(dir, 0o755))
		told("the directory")
		must(os.WriteFile(pid, []byte("1"), 0o644))
		told("the file")
		must(os.WriteFile(pid, []byte("2"), 0o644))
		told("another number in the file")
		if st := d.State(); st.Running || st.Err != nil {
			t.Errorf("running: %v, %v", st.Running, st.Err)
		}
		must(os.WriteFile(filepath.Join(top, "other"), nil, 0o644))
		must(os.Remove(filepath.Join(top, "other")))
		select {
		case <-changes:
			t.Error("told of a look, or of something elsewhere")
		case <-time.After(200 * time.Millisecond):
		}
		must(os.RemoveAll(filepath.Join(top, "libvirt")))
		told("the removal")
	}
	cancel()
	must(<-done)
}
