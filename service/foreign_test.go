package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const dropsForwarded = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"

// TestOthersStopTheOutside: a network is degraded while others stop what it is
// entitled to, on whichever way out the host has got.
func TestOthersStopTheOutside(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.want("without others", service.StateActive, "")
		r.Foreign.Change(strings.Replace(dropsForwarded, "COMMIT", "-A FORWARD -o eth0 -j ACCEPT\n-A FORWARD -i eth0 -j ACCEPT\nCOMMIT", 1), nil)
		pass(time.Second)
		r.want("the way out is free", service.StateActive, "")
		r.Links.Route(watch.Route{Index: r.Links.Add(watch.Link{Name: "wlan0", Up: true})})
		r.Links.Tell(watch.Change{Kind: watch.RoutesChanged})
		pass(time.Second)
		r.want("another way out", service.StateDegraded, finding.ForeignDrop)
		if reason := r.status("default").StateReason; !strings.Contains(reason, "iptables-nft -t filter -I FORWARD -i virbr0 -o wlan0 -j ACCEPT") {
			t.Errorf("the reason has no remedy: %s", reason)
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
		r.want("an isolated network", service.StateActive, "")
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
		r.want("stopped", service.StateDegraded, finding.ForeignDrop)
		r.Foreign.Change("", servicetest.ErrInjected)
		pass(time.Minute)
		r.want("nothing is known", service.StateDegraded, finding.ForeignDrop)
		before := r.Foreign.Read()
		pass(time.Minute)
		if n := r.Foreign.Read() - before; n < 2 || n > 6 {
			t.Errorf("they were read %d times in a minute", n)
		}
		r.Foreign.Change("", nil)
		pass(time.Second)
		r.want("they can be read", service.StateActive, "")
	})
}
