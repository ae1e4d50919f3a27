package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestOnlyLastingFailuresAreToldOf: a check that other programs' changes disturbed
// is retried, and logged, once, if that fails as well.
func TestOnlyLastingFailuresAreToldOf(t *testing.T) {
	var log strings.Builder
	lv := &libvirtFollower{log: logger{slog.New(slog.NewTextHandler(&log, nil))}}
	busy, other := errors.New("the ruleset keeps changing"), errors.New("no such program")
	var last failure
	for i, step := range []struct {
		err   error
		again bool
		lines int
	}{
		{busy, true, 0}, {nil, false, 0}, {busy, true, 0}, {busy, true, 1}, {busy, true, 1}, {other, true, 2}, {nil, false, 2}, {other, true, 2},
	} {
		last = lv.complainOnce(context.Background(), last, step.err)
		if last.failed != step.again || strings.Count(log.String(), "\n") != step.lines {
			t.Errorf("step %d: %+v\n%s", i, last, &log)
		}
	}
}
