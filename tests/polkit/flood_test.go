package polkit

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestDeniedFlood: eight users make as many calls as they can, all denied. Root
// and an authorized user are served all the while, and the log does not fill.
func TestDeniedFlood(t *testing.T) {
	t.Parallel()
	r := rig.WithPolkit(t, rig.Rule("manage-networks", `subject.user == "u2001"`, "YES")+rig.Rule("manage-networks", "true", "NO"))
	a := r.As(rig.Alice)
	add := func(p *rig.Person, i int) time.Duration {
		t.Helper()
		doc := rig.NetXML(fmt.Sprint("n", i), fmt.Sprint("virbr", i), "nat", fmt.Sprintf("10.1.%d.1/24", i))
		start := time.Now()
		if p == nil {
			r.OK(r.AddXML(doc))
		} else {
			r.OK(p.AddXML(doc))
		}
		return time.Since(start)
	}
	measure := func(p *rig.Person, first int) (times []time.Duration) {
		for i := range 30 {
			times = append(times, add(p, first+i))
		}
		slices.Sort(times)
		return times
	}
	middle := func(times []time.Duration) string {
		return fmt.Sprintf("%v in the middle, %v at most", times[len(times)/2], times[len(times)-1])
	}
	t.Logf("quiet: root %s", middle(measure(nil, 0)))
	t.Logf("quiet: a user who may %s", middle(measure(a, 30)))

	var stop atomic.Bool
	var denials, others atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	doc := rig.NetXML("flood", "virbr9999", "nat", "10.2.0.1/24")
	for user := range 8 {
		p := r.As(4000 + user)
		for range 16 {
			wg.Go(func() {
				for !stop.Load() {
					if name := rig.ErrorName(p.AddXML(doc).Err); name == rig.Denied {
						denials.Add(1)
					} else {
						others.Add(1)
					}
				}
			})
		}
	}
	defer wg.Wait()
	defer stop.Store(true)
	r.Until("the flood", func() bool { return denials.Load() > 200 })
	t.Logf("flood: root %s", middle(measure(nil, 60)))
	t.Logf("flood: a user who may %s", middle(measure(a, 90)))
	stop.Store(true)
	wg.Wait()
	took := time.Since(start)
	t.Logf("%d calls were denied in %v", denials.Load(), took)
	if n := others.Load(); n != 0 {
		t.Errorf("%d calls of the flood ended otherwise", n)
	}
	lines := strings.Count(r.Daemon.Log(), "denied a call")
	if most := 8 * (11 + int(took/(10*time.Second))); lines > most || lines < 8 {
		t.Errorf("%d lines were written about it, more than %d", lines, most)
	}
}
