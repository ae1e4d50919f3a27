package tests

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// stuckCall is a call that waits for firewalld, whose answer comes as the test
// says: late, after other things have happened. The real one cannot be held at
// that point for as long as they take.
type stuckCall struct {
	*rig
	w       *world
	release chan error
	ended   chan error
}

func newStuckCall(t *testing.T, call func(context.Context, *world) error) *stuckCall {
	t.Helper()
	r := newFailureRig(t)
	w := newWorld(t, r.Host, zones.New(r.bus, slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { rest(r, w) })
	c := &stuckCall{rig: r, w: w, release: make(chan error), ended: make(chan error, 1)}
	w.f.mu.Lock()
	w.f.stuck = c.release
	w.f.mu.Unlock()
	w.told()
	ctx := w.f.mark(context.Background())
	go func() { c.ended <- call(ctx, w) }()
	return c
}

// inForce waits until the call has changed the rules and asks firewalld.
func (c *stuckCall) inForce(done func(table string) bool) {
	c.t.Helper()
	c.until("the call waits for firewalld", c.w.f.waiting)
	if table := strings.Join(tableLines(c.Host), "\n"); !done(table) {
		c.t.Fatalf("the call asks firewalld before the rules are in force:\n%s", table)
	}
}

// answer is what firewalld says at last; then it answers everybody.
func (c *stuckCall) answer(err error) error {
	c.t.Helper()
	select {
	case got := <-c.ended:
		c.t.Fatalf("the call did not wait: %v", got)
	default:
	}
	c.release <- err
	select {
	case got := <-c.ended:
		return got
	case <-time.After(host.Patient(callTimeout)):
		c.t.Fatal("the call does not end")
	}
	return nil
}

func addNew(ctx context.Context, w *world) error {
	return addXML(ctx, w.svc, netXML("new", "virbr4", "isolated", "10.4.0.1/24"), service.ChangeOptions{Persistent: true})
}

// TestReloadTakesOutWhatWaits: a call waits for a stuck firewalld when a reload
// takes its network out again. The call's end must not bring it back, and rules
// hold for the bridge until it has left the zone that it has entered late.
func TestReloadTakesOutWhatWaits(t *testing.T) {
	t.Parallel()
	c := newStuckCall(t, addNew)
	c.inForce(func(table string) bool { return strings.Contains(table, "net_new_from") })
	fatal(t, os.Remove(c.w.path("etc/networks/new.xml")))
	fatal(t, c.w.svc.Reload(context.Background()))
	if table := strings.Join(tableLines(c.Host), "\n"); strings.Contains(table, "net_new") || !strings.Contains(table, `"virbr4"`) {
		t.Errorf("the network's rules are there, or none for its bridge:\n%s", table)
	}
	fatal(t, c.answer(nil))
	for _, e := range c.w.told() {
		if strings.Contains(e, "Name:new ") {
			t.Errorf("told of a network that was never certain: %s", e)
		}
	}
	c.until("virbr4 is in no zone", func() bool { return c.zoneOf("virbr4") == "" })
	c.until("nothing is left of it", func() bool { return !strings.Contains(strings.Join(tableLines(c.Host), "\n"), `"virbr4"`) })
	fatal(t, addNew(context.Background(), c.w))
	if zone := c.zoneOf("virbr4"); zone != "libvirt" {
		t.Errorf("added again virbr4 is in zone %q", zone)
	}
}

// TestReloadMovesWhatWaits to another bridge: the call's end says nothing of
// that one, and takes the first out of the zone that it has entered late.
func TestReloadMovesWhatWaits(t *testing.T) {
	t.Parallel()
	c := newStuckCall(t, addNew)
	c.inForce(func(table string) bool { return strings.Contains(table, "net_new_from") })
	c.w.write("new.xml", netXML("new", "virbr6", "isolated", "10.6.0.1/24"))
	fatal(t, c.w.svc.Reload(context.Background()))
	fatal(t, c.answer(nil))
	c.until("virbr4 is in no zone", func() bool { return c.zoneOf("virbr4") == "" })
	c.until("virbr6 is in zone libvirt", func() bool { return c.zoneOf("virbr6") == "libvirt" })
	if st, _ := c.w.svc.NetworkStatus("new"); st.Network.Bridge != "virbr6" {
		t.Errorf("the network has bridge %s", st.Network.Bridge)
	}
}

// TestBackendMovesUnderWhatWaits: all networks move to another backend while an
// update waits for a stuck firewalld. When it fails, what comes back is there.
func TestBackendMovesUnderWhatWaits(t *testing.T) {
	t.Parallel()
	c := newStuckCall(t, func(ctx context.Context, w *world) error {
		return w.svc.UpdateNetwork(ctx, "runtime", map[string]any{"Zone": "trusted", "ForwardMode": "isolated"}, service.ChangeOptions{})
	})
	c.inForce(func(table string) bool { return !strings.Contains(table, "net_runtime_nat") })
	fatal(t, c.w.svc.SetBackend(context.Background(), "iptables", service.ChangeOptions{}))
	if err := c.answer(errInjected); !errors.Is(err, errInjected) {
		t.Errorf("the update ended with %v", err)
	}
	st, _ := c.w.svc.NetworkStatus("runtime")
	if st.Backend != "iptables" || st.Network.Mode != "nat" {
		t.Errorf("the network is %s, held by %s", st.Network.Mode, st.Backend)
	}
	if _, holds := c.w.other.lines()["runtime"]; !holds {
		t.Errorf("what the update replaced did not come back: %v", c.w.other.lines())
	}
	c.until("virbr2 is in zone libvirt", func() bool { return c.zoneOf("virbr2") == "libvirt" })
	fatal(t, c.w.svc.SetBackend(context.Background(), "nftables", service.ChangeOptions{}))
}
