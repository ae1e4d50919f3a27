package service

import (
	"context"
	"errors"
	"testing"
)

// TestOnlyLastingFailuresAreToldOf: a look that other programs' changes disturbed
// is retried, and logged, once, if that fails as well.
func TestOnlyLastingFailuresAreToldOf(t *testing.T) {
	var told []string
	complain := func(cause string) { told = append(told, cause) }
	busy, other := errors.New("the ruleset keeps changing"), errors.New("no such program")
	var last failure
	for i, step := range []struct {
		err   error
		again bool
		lines int
	}{
		{busy, true, 0}, {nil, false, 0}, {busy, true, 0}, {busy, true, 1}, {busy, true, 1}, {other, true, 2}, {nil, false, 2}, {other, true, 2},
	} {
		last = last.then(context.Background(), step.err, complain)
		if last.failed != step.again || len(told) != step.lines {
			t.Errorf("step %d: %+v\n%q", i, last, told)
		}
	}
}
