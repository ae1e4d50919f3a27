package binding

import (
	"testing"
	"time"
)

func TestPausesGrow(t *testing.T) {
	var pause time.Duration
	for i := range 8 {
		next := longer(pause)
		if want := 500 * time.Millisecond << i; next != min(want, time.Minute) {
			t.Errorf("pause %d is %s", i, next)
		}
		pause = next
	}
	if pause != time.Minute || longer(pause) != time.Minute {
		t.Errorf("the longest pause is %s, then %s", pause, longer(pause))
	}
}
