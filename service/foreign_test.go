package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const dropsForwarded = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"

// TestOthersStopTheOutside: it is found where others stop what a network is
// entitled to, on whichever way out the host has got.
func TestOthersStopTheOutside(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.wantFinding("without others", finding.ForeignDrop, false)
		r.Foreign.Change(strings.Replace(dropsForwarded, "COMMIT", "-A FORWARD -o eth0 -j ACCEPT\n-A FORWARD -i eth0 -j ACCEPT\nCOMMIT", 1), nil)
		pass(time.Second)
		r.wantFinding("the way out is free", finding.ForeignDrop, false)
		r.Links.Route(watch.Route{Index: r.Links.Add(watch.Link{Name: "wlan0", Up: true})})
		r.Links.Tell(watch.Change{Kind: watch.RoutesChanged})
		pass(time.Second)
		r.want("another way out", service.StateDegraded, finding.ForeignDrop)
		for _, f := range r.status("default").Findings {
			if f.ID == finding.ForeignDrop && !strings.Contains(f.Remedy, "iptables-nft -t filter -I FORWARD -i virbr0 -o wlan0 -j ACCEPT") {
				t.Errorf("there is no remedy: %s", f.Remedy)
			}
		}
		r.Foreign.Change("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", nil)
		pass(time.Second)
		r.want("nobody stops it", service.StateActive, "")
	})
}

// TestOthersAndIsolatedNetworks: what a network is not entitled to nobody takes
// from it.
func TestOthersAndIsolatedNetworks(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.Foreign.Change(dropsForwarded, nil)
		pass(time.Second)
		if n := r.Foreign.Read(); n != 0 {
			t.Errorf("rules were read %d times without a network", n)
		}
		r.add("isolated")
		pass(time.Second)
		r.wantFinding("an isolated network", finding.ForeignDrop, false)
	})
}

// TestOthersRulesThatCannotBeRead are read again by themselves, and what was known
// until then holds.
func TestOthersRulesThatCannotBeRead(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Foreign.Change(dropsForwarded, nil)
		pass(time.Second)
		r.wantFinding("stopped", finding.ForeignDrop, true)
		r.Foreign.Change("", servicetest.ErrInjected)
		before := r.Foreign.Read()
		pass(time.Minute)
		r.wantFinding("nothing is known", finding.ForeignDrop, true)
		if n := r.Foreign.Read() - before; n < 3 || n > 6 {
			t.Errorf("they were read %d times in the first minute", n)
		}
		before = r.Foreign.Read()
		pass(time.Hour)
		if n := r.Foreign.Read() - before; n < 10 || n > 16 {
			t.Errorf("they were read %d times in the hour after that", n)
		}
		r.Foreign.Change("", nil)
		pass(time.Second)
		r.wantFinding("they can be read", finding.ForeignDrop, false)
	})
}

// TestOthersAndABridgeThatGoes: what is said of a network ends with its bridge.
func TestOthersAndABridgeThatGoes(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Foreign.Change(dropsForwarded, nil)
		pass(time.Second)
		r.wantFinding("stopped", finding.ForeignDrop, true)
		r.Links.Delete(r.index("virbr0"))
		pass(time.Second)
		r.wantFinding("without a bridge", finding.ForeignDrop, false)
	})
}

// TestOthersWriteInSteps: what stops guests for a moment is not said.
func TestOthersWriteInSteps(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		for range 3 {
			r.Foreign.Change(dropsForwarded, nil)
			pass(foreignStep)
			r.wantFinding("in the middle of a change", finding.ForeignDrop, false)
			r.Foreign.Change("", nil)
			pass(time.Second)
			r.wantFinding("after it", finding.ForeignDrop, false)
		}
	})
}

// foreignStep is long enough for one look, and too short for two.
const foreignStep = 300 * time.Millisecond

// TestOthersRulesInAFight are not looked at from the second repair on, and again when
// that is over.
func TestOthersRulesInAFight(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.flush(choice.NFTables, "nft", 812)
		pass(2 * time.Second)
		r.Foreign.Change(dropsForwarded, nil)
		pass(time.Second)
		r.want("after one repair", service.StateDegraded, finding.ForeignDrop)
		r.flush(choice.NFTables, "nft", 812)
		pass(2 * time.Second)
		before := r.Foreign.Read()
		r.Foreign.Change("", nil)
		pass(2 * time.Second)
		if n := r.Foreign.Read() - before; n != 0 {
			t.Errorf("they were read %d times after the second repair", n)
		}
		pass(time.Minute)
		r.want("after a while", service.StateActive, "")
	})
}

// TestOthersAreBusy: rules that change while they are read are read again, and nothing
// is said of it.
func TestOthersAreBusy(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		before := r.Foreign.Read()
		r.Foreign.Change("", nfnl.ErrChanged)
		pass(10 * time.Second)
		if n := r.Foreign.Read() - before; n < 3 {
			t.Errorf("they were read %d times", n)
		}
		r.Foreign.Change(dropsForwarded, nil)
		pass(time.Second)
		r.want("they are done", service.StateDegraded, finding.ForeignDrop)
	})
}
