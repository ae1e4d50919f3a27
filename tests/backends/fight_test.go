package backends

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestFightOverChains: another program undoes each repair, and when it ends all
// is well by itself.
func TestFightOverChains(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := newChainRig(t, variant)
			fight(r.Rig, t, "iptables", "iptables -w -F FORWARD", 2)
			r.works(t, "after the fight")
			if diff := cmp.Diff(r.whole, rig.Chains(r.Host)); diff != "" {
				t.Errorf("the chains are not as they were (-before +after):\n%s", diff)
			}
		})
	}
}

// TestFightOverTheTable is the same with the nftables backend, where the table
// is not protected.
func TestFightOverTheTable(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Write(rig.ConfigFile, "own_table = false\n")
	r.StartDaemon()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	whole := rig.Uncounted(rig.TableLines(r.Host))
	fight(r, t, "nft", "nft flush set inet libvirt_network may_leave4_name", 1)
	rig.Natted(t, guest, internet, "after the fight")
	rig.Guarded(t, guest, internet, "after the fight")
	if diff := cmp.Diff(whole, rig.Uncounted(rig.TableLines(r.Host))); diff != "" {
		t.Errorf("the table is not as it was (-before +after):\n%s", diff)
	}
}

// unwell is what the service logs of networks in a fight.
var unwell = []string{"a network is degraded", "a network is failed"}

// fight makes another program undo each repair. The pauses grow, State names the
// program and whether the rules are in force, and the service uses little of the
// processor.
func fight(r *rig.Rig, t *testing.T, program, undo string, networks uint32) {
	t.Helper()
	r.Announce(unwell...)
	other := r.Start("opponent", "sh", "-c", "while :; do "+undo+" 2>/dev/null; sleep 0.02; done")
	r.AwaitState("default", "failed")
	before, began := processor(r), time.Now()
	_, reason := r.State("default")
	if code := r.Property("default", "StateCode"); code != "rules-missing" || !strings.Contains(reason, program) || !strings.Contains(reason, "virtfirewallctl reapply") {
		t.Errorf("State is failed with %v: %s", code, reason)
	}
	told := r.Repairs()
	time.Sleep(5 * time.Second)
	share := (processor(r) - before).Seconds() / time.Since(began).Seconds()
	t.Logf("%d repairs in 5 s; %.1f %% of a processor", len(told()["default"]), 100*share)
	if share > 0.05 {
		t.Errorf("the service takes %.1f %% of a processor", 100*share)
	}
	awaitTrue(t, "reapply mends all in a pause", func() bool { return r.Reapply() == networks })
	if err := other.Kill(); err != nil && other.Running() {
		t.Fatal(err)
	}
	r.Reapply() // it would take until the pause ends
	if code := r.Property("default", "StateCode"); code != "rules-fought-over" {
		_, reason := r.State("default")
		t.Errorf("StateCode is %v: %s", code, reason)
	}
	// That takes twice the pause that the fight has come to, which grew while the
	// machine was slow; the longest is a minute.
	began = time.Now()
	if !rig.Await(150*time.Second, func() bool { state, _ := r.State("default"); return state == "active" }) {
		state, reason := r.State("default")
		t.Fatalf("after the fight the network is %s (%s), not active", state, reason)
	}
	t.Logf("active again after %v", time.Since(began))
}

// processor returns the time that the service and the programs it ran have had.
func processor(r *rig.Rig) time.Duration {
	r.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.Daemon.PID()))
	rig.Must(r.T, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var sum time.Duration
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		var ticks int64
		_, _ = fmt.Sscan(field, &ticks)
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum
}
