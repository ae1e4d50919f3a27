package service_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
)

// stuck is a call that waits for firewalld, which answers when the test says so:
// late, after other things have happened.
type stuck struct {
	*rig
	answers chan<- error
	ended   chan error
}

// call begins a call that waits for firewalld, in a world of NewBase.
func (r *rig) call(do func(context.Context) error) *stuck {
	r.t.Helper()
	r.Links.Delete(r.index("virbr1"))
	for i := range 6 {
		r.Links.Bridge(fmt.Sprintf("virbr%d", i+1))
	}
	servicetest.NewBase(r.World)
	r.Events()
	c := &stuck{rig: r, answers: r.Faults.Stick(), ended: make(chan error, 1)}
	go func() { c.ended <- do(r.Faults.Mark(context.Background())) }()
	pass(time.Second)
	if !r.Faults.Waiting() {
		r.t.Fatalf("the call does not wait for firewalld: %v", <-c.ended)
	}
	return c
}

// answer makes firewalld answer at last, and returns the call's error.
func (c *stuck) answer(err error) error {
	c.answers <- err
	got := <-c.ended
	pass(time.Minute)
	return got
}

func (r *rig) addNew(ctx context.Context) error {
	return r.Add(ctx, servicetest.NetXML("new", "virbr4", "isolated", "10.4.0.1/24"), service.ChangeOptions{Persistent: true})
}

// TestReloadTakesOutWhatWaits: a reload removes a network while a call that adds it
// waits. The end of the call must not restore it, and rules hold for the bridge
// until it has left the zone that it entered late.
func TestReloadTakesOutWhatWaits(t *testing.T) {
	virtual(t, func(r *rig) {
		c := r.call(r.addNew)
		if !r.holds("Comment:network new") {
			t.Error("firewalld is asked before the rules are in force")
		}
		r.Must(os.Remove(r.Path("etc/networks/new.xml")))
		r.Must(r.Service.Reload(context.Background()))
		if r.holds("Comment:network new") || !r.holds("Name:virbr4") {
			t.Errorf("the network's rules are there, or none for its bridge: %q", r.Kernel.Lines())
		}
		r.Must(c.answer(nil))
		for _, e := range r.Events() {
			if strings.Contains(fmt.Sprintf("%+v", e), "Name:new ") {
				t.Errorf("told of a network that was never certain: %+v", e)
			}
		}
		r.wantZone("answered", "virbr4", "")
		if r.holds("Name:virbr4") {
			t.Errorf("rules are left: %q", r.Kernel.Lines())
		}
		r.Must(r.addNew(context.Background()))
		r.wantZone("added again", "virbr4", "libvirt")
	})
}

// TestReloadMovesWhatWaits to another bridge: the end of the call does not affect
// that one, and takes the first out of the zone that it entered late.
func TestReloadMovesWhatWaits(t *testing.T) {
	virtual(t, func(r *rig) {
		c := r.call(r.addNew)
		r.Write("new.xml", servicetest.NetXML("new", "virbr6", "isolated", "10.6.0.1/24"))
		r.Must(r.Service.Reload(context.Background()))
		r.Must(c.answer(nil))
		r.wantZone("answered", "virbr4", "")
		r.wantZone("answered", "virbr6", "libvirt")
		if st := r.status("new"); st.Network.Bridge != "virbr6" {
			t.Errorf("the network has bridge %s", st.Network.Bridge)
		}
	})
}

// TestBackendMovesUnderWhatWaits: if an update that waited for firewalld fails, the
// old network is restored in the backend that all networks have moved to.
func TestBackendMovesUnderWhatWaits(t *testing.T) {
	virtual(t, func(r *rig) {
		c := r.call(func(ctx context.Context) error {
			return r.Service.UpdateNetwork(ctx, "runtime", map[string]any{"Zone": "trusted", "ForwardMode": "isolated"}, service.ChangeOptions{})
		})
		r.Must(r.Service.SetBackend(context.Background(), choice.IPTables, service.ChangeOptions{}))
		if err := c.answer(servicetest.ErrInjected); !errors.Is(err, servicetest.ErrInjected) {
			t.Errorf("the update ended with %v", err)
		}
		if st := r.status("runtime"); st.Backend != choice.IPTables || st.Network.Mode != "nat" {
			t.Errorf("the network is %s, held by %s", st.Network.Mode, st.Backend)
		}
		if !strings.Contains(r.World.Chains.Lines()["runtime"], "MASQUERADE") {
			t.Errorf("what the update replaced did not come back: %v", r.World.Chains.Lines())
		}
		r.wantZone("failed", "virbr2", "libvirt")
	})
}

// TestLinksChangeUnderWhatWaits: a bridge that is deleted and created again while
// a call waits is looked up again.
func TestLinksChangeUnderWhatWaits(t *testing.T) {
	virtual(t, func(r *rig) {
		c := r.call(r.addNew)
		r.Links.Delete(r.index("virbr4"))
		index := r.Links.Bridge("virbr4")
		pass(moment)
		r.Must(c.answer(nil))
		if st := r.status("new"); st.BridgeIndex != index || st.State != service.StateActive {
			t.Errorf("the network is %s on %d, want %d", st.State, st.BridgeIndex, index)
		}
	})
}

// TestCallsAboutOneNetworkTakeTurns, and a call whose time is over gives up.
func TestCallsAboutOneNetworkTakeTurns(t *testing.T) {
	virtual(t, func(r *rig) {
		c := r.call(r.addNew)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := r.Service.UpdateNetwork(ctx, "new", map[string]any{"DNS": false}, service.ChangeOptions{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call about a network that another changes: %v", err)
		}
		other := make(chan error, 1)
		go func() {
			other <- r.Service.UpdateNetwork(context.Background(), "new", map[string]any{"TFTP": true}, service.ChangeOptions{})
		}()
		r.Must(c.answer(nil))
		r.Must(<-other)
		if !r.status("new").Network.TFTP {
			t.Error("the second call changed nothing")
		}
	})
}
