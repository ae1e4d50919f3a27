package tests

import (
	"context"
	"log/slog"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// TestRemovalRightAfterAStart: a service that has just started has not heard yet
// which zone a bridge is in. Removing its network takes it out all the same.
func TestRemovalRightAfterAStart(t *testing.T) {
	t.Parallel()
	r := newFailureRig(t)
	w := newWorld(t, r.Host, zones.New(r.bus, slog.New(slog.DiscardHandler)))
	defer rest(r, w)
	for range 5 {
		if zone := r.zoneOf("virbr2"); zone != "libvirt" {
			t.Fatalf("before the restart virbr2 is in zone %q", zone)
		}
		w.stop()
		w.start()
		fatal(t, w.svc.RemoveNetwork(context.Background(), "runtime", service.ChangeOptions{}))
		if zone := r.zoneOf("virbr2"); zone != "" {
			t.Errorf("after the removal virbr2 is in zone %q", zone)
		}
		w.compare()
		w.add(netXML("runtime", "virbr2", "nat", "10.2.0.1/24"), false)
	}
}
