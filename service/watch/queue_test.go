package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Whatever happens and however slow the consumer is: what is delivered adds up to
// the current state, and never has a name on two links at once.
func TestQueueAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		q.limit = rapid.IntRange(1, 20).Draw(t, "limit")
		c := newCache(q.push)
		q.start(c)
		told, nextIndex := map[int]Link{}, 1
		names := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		take := func() bool {
			change, ok := q.pop()
			if ok {
				apply(told, change)
			}
			return ok
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			name := names.Draw(t, "name")
			l, is := c.link(name)
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				if !is {
					c.linkEvent(Link{Index: nextIndex, Name: name, Bridge: true}, false)
					nextIndex++
				}
			case 1:
				if is {
					c.linkEvent(l, true)
				}
			case 2:
				to := names.Draw(t, "to")
				if _, taken := c.link(to); is && !taken {
					l.Name = to
					c.linkEvent(l, false)
				}
			case 3:
				if is {
					l.Up = !l.Up
					c.linkEvent(l, false)
				}
			case 4:
				take()
			}
		}
		for take() {
			continue
		}
		if diff := cmp.Diff(c.links, told); diff != "" {
			t.Fatal("-is +told\n", diff)
		}
	})
}
