package lifecycle

import (
	"fmt"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestIdleSleeps counts how often the service's threads ran while nothing
// happened to it: each run of a thread ends with a switch to another.
func TestIdleSleeps(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		for _, firewalld := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, firewalld %v", backend, firewalld), func(t *testing.T) {
				t.Parallel()
				r := rig.New(t)
				if backend == "iptables" {
					r.Announce(rig.Uncovered)
				}
				if firewalld {
					r.Firewalld.Start("nftables")
				}
				r.StartDaemon()
				r.OK(r.Manager("SetBackend", backend, rig.Opts()))
				for i := range 10 {
					bridge, ip := fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.%d.0.1/24", 64+i)
					r.Bridge(bridge, ip)
					r.OK(r.AddXML(rig.NetXML(bridge, bridge, "nat", ip), "Persistent", true))
				}
				comesToRest(r)
				before := r.Switches()
				r.OK(r.Manager("ListNetworks"))
				if r.Switches() == before {
					t.Error("a call is not seen in what is counted")
				}
			})
		}
	}
}

// comesToRest waits for ten seconds in which no thread of the service runs. What
// follows a change has its pauses, Go wakes up once more for a time-out that is
// no longer needed, of which the longest is 90 s, and its own monitor looks once
// a minute: none of these comes every ten seconds, as a ticker of ours would.
func comesToRest(r *rig.Rig) {
	r.T.Helper()
	var ran []int
	for range 12 {
		if ran = append(ran, r.Sleeps(10*time.Second)); ran[len(ran)-1] == 0 {
			return
		}
	}
	r.T.Errorf("threads of the idle service ran so often in each 10 s: %v", ran)
}
