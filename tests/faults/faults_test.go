// Package faults holds the tests of failures and kills at each step, with the
// real kernel and firewalld.
package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// realHost is a platform with a real kernel, firewalld and links. What would act
// in the network namespace of the test is in memory.
type realHost struct {
	*rig.Rig
	client *zones.Client
	ns     netns.NsHandle
}

// newRealHost returns a host with bridges and a firewalld with the service's zones, and
// virbr5 in zone work before anybody asks for it.
func newRealHost(t *testing.T) *realHost {
	t.Helper()
	r := rig.New(t)
	r.Firewalld.SetZones(rig.AllZones...)
	r.Firewalld.Start("nftables")
	for i := range 5 {
		r.Bridge(fmt.Sprintf("virbr%d", i+1), fmt.Sprintf("10.%d.0.1/24", i+1))
	}
	ns, err := netns.GetFromPath(r.Host.NetNS())
	rig.Must(t, err)
	t.Cleanup(func() { ns.Close() })
	return &realHost{Rig: r, client: zones.New(r.Conn, slog.New(slog.DiscardHandler)), ns: ns}
}

// Deps returns the dependencies of one run of the service.
func (h *realHost) Deps(t testing.TB, start func(string) ruleset.Counters) (service.Deps, backend.Backend, func() error) {
	rules, err := nftables.Open(nftables.Config{Owned: true, NetNS: int(h.ns), StartValues: start})
	rig.Must(t, err)
	links, err := watch.Start(context.Background(), watch.Config{NetNS: h.ns})
	rig.Must(t, err)
	needs, libvirt, touches := servicetest.NewNeeds(), servicetest.NewLibvirt(t.TempDir()), servicetest.NewTouches()
	return service.Deps{
		Links: links, Zones: h.client, Firewalld: h.client, Table: touches, Chains: touches,
		Host: needs, Advertisements: needs, Leftovers: libvirt, Libvirt: libvirt, Foreign: servicetest.NewForeign(),
	}, rules, func() error { return errors.Join(links.Close(), rules.Close()) }
}

// Rules returns the lines of the table.
func (h *realHost) Rules() []string { return rig.TableLines(h.Host) }

// Zones returns the zones of interfaces.
func (h *realHost) Zones(t testing.TB) map[string]string {
	t.Helper()
	bound, err := h.client.Interfaces(context.Background())
	rig.Must(t, err)
	return bound
}

// fresh returns a world of NewBase on the host, whatever an earlier one left.
func (h *realHost) fresh(t testing.TB) *servicetest.World {
	t.Helper()
	_, _ = h.Run("nft", "delete", "table", "inet", "libvirt_network") // where there is one
	for i := range 4 {
		rig.Must(t, h.client.Unbind(context.Background(), "", fmt.Sprintf("virbr%d", i+1)))
	}
	h.Firewalld.Move("virbr5", "work")
	return servicetest.NewBase(servicetest.NewWorld(t, h))
}

// realOperations returns calls that together make every kind of step. Package
// service's own tests walk through all calls in memory.
func realOperations() []servicetest.Operation {
	names := []string{"move for good", "add with a zone, bridge in another", "replace for good", "update bridge and zone", "update to open", "remove for good", "reload", "bind"}
	return slices.DeleteFunc(servicetest.Operations(), func(op servicetest.Operation) bool { return !slices.Contains(names, op.Name) })
}

// TestFailedCallsChangeNothing makes each step of calls fail in turn, once before
// it is done and once after, and compares everything.
func TestFailedCallsChangeNothing(t *testing.T) {
	t.Parallel()
	h := newRealHost(t)
	for _, op := range realOperations() {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answers lost: %v", op.Name, after), func(t *testing.T) {
				servicetest.FailEachStep(t, op, after, h.fresh)
			})
		}
	}
}

// TestKilledAtEachStep ends the service at each step of calls in turn, with
// nothing undone. The next start leads to the old state or the new one.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	h := newRealHost(t)
	for _, op := range realOperations() {
		t.Run(op.Name, func(t *testing.T) { servicetest.KillAtEachStep(t, op, h.fresh) })
	}
}
