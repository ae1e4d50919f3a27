package program

import (
	"context"
	"errors"
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
