package faults

import (
	"context"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestRemovalRightAfterAStart: a service that has just started has not heard yet
// which zone a bridge is in. Removing its network takes it out all the same.
func TestRemovalRightAfterAStart(t *testing.T) {
	t.Parallel()
	h := newRealHost(t)
	w := h.fresh(t)
	defer w.Stop()
	for range 5 {
		if zone := h.Firewalld.ZoneOf("virbr2"); zone != "libvirt" {
			t.Fatalf("before the restart virbr2 is in zone %q", zone)
		}
		w.Stop()
		w.Start()
		rig.Must(t, w.Service.RemoveNetwork(context.Background(), "runtime", service.ChangeOptions{}))
		if zone := h.Firewalld.ZoneOf("virbr2"); zone != "" {
			t.Errorf("after the removal virbr2 is in zone %q", zone)
		}
		w.Compare()
		rig.Must(t, w.Add(context.Background(), servicetest.NetXML("runtime", "virbr2", "nat", "10.2.0.1/24"), service.ChangeOptions{}))
	}
}
