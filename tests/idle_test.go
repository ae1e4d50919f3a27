package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIdleSleeps counts how often the service's threads ran while nothing
// happened to it: each run of a thread ends with a switch to another.
func TestIdleSleeps(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		for _, firewalld := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, firewalld %v", backend, firewalld), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				if backend == "iptables" {
					r.Announce(uncovered)
				}
				if firewalld {
					r.Firewalld("nftables")
				}
				r.StartDaemon()
				r.must(r.Manager("SetBackend", backend, opts()))
				for i := range 10 {
					bridge, ip := fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.%d.0.1/24", 64+i)
					r.Bridge(bridge, ip)
					r.must(r.AddXML(netXML(bridge, bridge, "nat", ip), "Persistent", true))
				}
				r.comesToRest()
				before := r.switches()
				r.must(r.Manager("ListNetworks"))
				if r.switches() == before {
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
func (r *rig) comesToRest() {
	r.t.Helper()
	var ran []int
	for range 12 {
		if ran = append(ran, r.sleeps(10*time.Second)); ran[len(ran)-1] == 0 {
			return
		}
	}
	r.t.Errorf("threads of the idle service ran so often in each 10 s: %v", ran)
}

// sleeps waits, and says how often threads of the service ran meanwhile.
func (r *rig) sleeps(d time.Duration) int {
	r.t.Helper()
	before := r.switches()
	time.Sleep(d)
	return r.switches() - before
}

// switches are the context switches of all threads of the service.
func (r *rig) switches() (sum int) {
	r.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.Daemon.PID()))
	if err != nil || len(tasks) == 0 {
		r.t.Fatalf("the service has no threads: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			r.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var n int
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				_, _ = fmt.Sscan(value, &n)
				sum += n
			}
		}
	}
	return sum
}
