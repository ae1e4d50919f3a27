package program

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	out, err := Run(t.Context(), "a; $(b) \"c\"\n", "/bin/cat")
	if err != nil || out != "a; $(b) \"c\"\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestRunSaysWhatTheProgramComplainedOf(t *testing.T) {
	_, err := Run(t.Context(), "", "/bin/cat", "/no/such/file")
	if err == nil || !strings.Contains(err.Error(), "running cat: exit status 1") || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("got %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, "", "/bin/sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestRunAllRunsAtOnce: each of two programs ends only if the other runs too, and one
// that fails does not keep the others from their end.
func TestRunAllRunsAtOnce(t *testing.T) {
	dir := t.TempDir()
	meet := func(own, other string) Job {
		script := "touch " + own + "; while [ ! -e " + other + " ]; do sleep 0.01; done; cat"
		return Job{Path: "/bin/sh", Args: []string{"-c", script}, Stdin: own}
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	results := RunAll(ctx, Job{Path: "/bin/false"}, meet(a, b), Job{Path: "/no/such/program"}, meet(b, a))
	for i, want := range []string{"", a, "", b} {
		if r := results[i]; r.Out != want || (r.Err == nil) != (want != "") {
			t.Errorf("run %d: %q, %v", i, r.Out, r.Err)
		}
	}
}
