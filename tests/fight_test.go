package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFightOverChains: another program undoes each repair, and when it ends all
// is well by itself.
func TestFightOverChains(t *testing.T) {
	t.Parallel()
	for _, variant := range iptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := newChainRig(t, variant)
			r.fight(t, "iptables", "iptables -F FORWARD", 2)
			r.works(t, "after the fight")
			if diff := cmp.Diff(r.whole, r.chains()); diff != "" {
				t.Errorf("the chains are not as they were (-before +after):\n%s", diff)
			}
		})
	}
}

// TestFightOverTheTable is the same with the nftables backend, where the table
// is not protected.
func TestFightOverTheTable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(configFile, "own_table = false\n")
	r.StartDaemon()
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	whole := uncounted(tableLines(r.Host))
	r.fight(t, "nft", "nft flush chain inet libvirt_network net_default_from", 1)
	natted(t, guest, internet, "after the fight")
	guarded(t, guest, internet, "after the fight")
	if diff := cmp.Diff(whole, uncounted(tableLines(r.Host))); diff != "" {
		t.Errorf("the table is not as it was (-before +after):\n%s", diff)
	}
}

// unwell is what the log says of networks in a fight.
var unwell = []string{"a network is degraded", "a network is failed"}

// fight has another program undo each repair. The pauses grow, State says who it
// is and whether the rules are in force, and the service takes part with no more
// than a little of the processor.
func (r *rig) fight(t *testing.T, program, undo string, networks uint32) {
	t.Helper()
	r.Announce(unwell...)
	other := r.Start("opponent", "sh", "-c", "while :; do "+undo+" 2>/dev/null; sleep 0.02; done")
	r.AwaitState("default", "failed")
	before, began := r.processor(), time.Now()
	_, reason := r.State("default")
	if code := r.Property("default", "StateCode"); code != "rules-missing" || !strings.Contains(reason, program) || !strings.Contains(reason, "virtfirewallctl reapply") {
		t.Errorf("State is failed with %v: %s", code, reason)
	}
	told := r.repairs()
	time.Sleep(5 * time.Second)
	share := (r.processor() - before).Seconds() / time.Since(began).Seconds()
	t.Logf("%d repairs in 5 s; %.1f %% of a processor", len(told()["default"]), 100*share)
	if share > 0.05 {
		t.Errorf("the service takes %.1f %% of a processor", 100*share)
	}
	awaitTrue(t, "reapply mends all in a pause", func() bool { return r.reapply() == networks })
	if err := other.Kill(); err != nil && other.Running() {
		t.Fatal(err)
	}
	r.reapply() // it would take until the pause ends
	if code := r.Property("default", "StateCode"); code != "rules-fought-over" {
		_, reason := r.State("default")
		t.Errorf("StateCode is %v: %s", code, reason)
	}
	t.Logf("active again after %v", r.AwaitState("default", "active"))
}

// processor is the time that the service and the programs it ran have had.
func (r *rig) processor() time.Duration {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.Daemon.PID()))
	if err != nil {
		r.t.Fatal(err)
	}
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
