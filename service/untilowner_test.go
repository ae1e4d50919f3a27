package service

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUntilOwnerGone waits for the owner of a table and for nothing else.
func TestUntilOwnerGone(t *testing.T) {
	held := fmt.Errorf("adding the table: %w", unix.EPERM)
	other := errors.New("another")
	for name, c := range map[string]struct {
		answers []error
		want    error
	}{
		"free":           {[]error{nil}, nil},
		"held at first":  {[]error{held, held, nil}, nil},
		"another error":  {[]error{other}, other},
		"another, later": {[]error{held, other}, other},
	} {
		calls := 0
		err := untilOwnerGone(t.Context(), func() error { calls++; return c.answers[calls-1] })
		if !errors.Is(err, c.want) || calls != len(c.answers) {
			t.Errorf("%s: %v after %d calls", name, err, calls)
		}
	}
}
