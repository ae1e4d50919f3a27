package dbus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// 64 callers at once, on connections of their own and on shared ones, while
// networks come and go.
func TestManyCallers(t *testing.T) {
	r := newRig(t)
	signals := r.listen(t, r.client)
	connections := make([]*Bus, 8)
	for i := range connections {
		connections[i] = r.bus.connect(t)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		c := connections[i%len(connections)].Conn()
		wg.Go(func() { callAround(t, c, fmt.Sprintf("net%d", i)) })
	}
	wg.Wait()
	if all := r.api.AllNetworks(); len(all) != 0 {
		t.Errorf("%d networks are left", len(all))
	}
	// Each network came and went four times, and the bus got a signal each time.
	r.server.Notify(service.Repaired{Name: "the end"})
	counts := map[string]int{}
	for s := next(t, signals); s.Name != managerInterface+".Repaired"; s = next(t, signals) {
		counts[s.Name]++
	}
	for _, name := range []string{managerInterface + ".NetworkAdded", managerInterface + ".NetworkRemoved",
		objectManagerInterface + ".InterfacesAdded", objectManagerInterface + ".InterfacesRemoved"} {
		if counts[name] != 256 {
			t.Errorf("%d signals %s, want 256", counts[name], name)
		}
	}
}

func callAround(t *testing.T, c *godbus.Conn, name string) {
	manager := c.Object(BusName, ManagerPath)
	for range 4 {
		var path godbus.ObjectPath
		if err := manager.Call(managerInterface+".AddNetwork", 0, name, plainSettings(name), noOptions()).Store(&path); err != nil {
			t.Errorf("adding %s: %v", name, err)
			return
		}
		var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
		if err := manager.Call(objectManagerInterface+".GetManagedObjects", 0).Store(&objects); err != nil {
			t.Errorf("GetManagedObjects: %v", err)
		} else if objects[path][networkInterface]["Name"].Value() != name {
			t.Errorf("%s is not among the objects right after it was added", name)
		}
		if err := c.Object(BusName, path).Call(networkInterface+".Update", 0, options("TFTP", true), noOptions()).Err; err != nil {
			t.Errorf("updating %s: %v", name, err)
		}
		if err := manager.Call(managerInterface+".RemoveNetwork", 0, name, noOptions()).Err; err != nil {
			t.Errorf("removing %s: %v", name, err)
		}
	}
}

// The hand-written encoding is equal to godbus's.
func TestManagedObjectsAreTheProperties(t *testing.T) {
	r := newRig(t)
	want := map[godbus.ObjectPath]map[string]map[string]godbus.Variant{}
	check := func() {
		t.Helper()
		var got map[godbus.ObjectPath]map[string]map[string]godbus.Variant
		must(t, r.callAt(ManagerPath, objectManagerInterface+".GetManagedObjects").Store(&got))
		if diff := cmp.Diff(render(want), render(got)); diff != "" {
			t.Fatal(diff)
		}
	}
	check()
	for i := range 50 {
		name := "a name of some length \u00e9\U0001F525"[:1+i%20]
		if name = fmt.Sprint(clean(name), i); i == 7 {
			name = "_"
		}
		path := r.add(t, name)
		if i%3 == 0 {
			must(t, r.callAt(path, networkInterface+".Update", options("Routes", []string{"10.9.0.0/16", "fd09::/64"}), noOptions()).Err)
		}
		var all map[string]godbus.Variant
		must(t, r.callAt(path, propertiesInterface+".GetAll", networkInterface).Store(&all))
		want[path] = map[string]map[string]godbus.Variant{networkInterface: all}
		check()
	}
}

func render(m map[godbus.ObjectPath]map[string]map[string]godbus.Variant) map[string]string {
	out := map[string]string{}
	for path, ifaces := range m {
		for iface, props := range ifaces {
			for name, v := range props {
				out[fmt.Sprint(path, iface, name)] = v.Signature().String() + " " + v.String()
			}
		}
	}
	return out
}

// Where too many calls wait the rest is refused, and the service goes on; reads
// are answered while changes hang.
func TestTooManyCalls(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	var hanging atomic.Int32
	r.api.setFault(func(context.Context) error { hanging.Add(1); <-release; return nil })
	const n = 300
	done := make(chan *godbus.Call, n)
	// The bus refuses a connection's calls beyond 128; these want no answer,
	// so that only the service's own limit holds.
	for range n {
		must(t, r.object(ManagerPath).Call(managerInterface+".Reload", godbus.FlagNoReplyExpected).Err)
	}
	eventually(t, "the running calls", func() bool { return hanging.Load() == maxRunning })
	eventually(t, "the waiting calls", func() bool {
		r.server.root.changes.mu.Lock()
		defer r.server.root.changes.mu.Unlock()
		return r.server.root.changes.pending == maxPendingEach
	})
	other := r.bus.connect(t)
	err := r.call("Reload").Err
	wantError(t, err, errLimitsExceeded, "128 of your calls")
	must(t, other.Conn().Object(BusName, ManagerPath).Call(managerInterface+".ListNetworks", 0).Err)
	other.Conn().Object(BusName, ManagerPath).Go(managerInterface+".Reapply", 0, done)
	r.api.setFault(nil)
	close(release)
	must(t, (<-done).Err)
	// On a busy machine some of the first calls come only now, and find room.
	eventually(t, "the end of the calls", func() bool { return len(r.api.asked()) >= maxPendingEach+1 })
}

func TestPoolBounds(t *testing.T) {
	p := newPool(maxPendingEach, maxRunning)
	for i := range maxPending {
		must(t, p.enter(fmt.Sprint(i%maxPendingEach)))
	}
	if err := p.enter("one more"); err == nil || errorName(err) != errLimitsExceeded {
		t.Errorf("one call too many: %v", err)
	}
	for i := range maxPending {
		p.leave(fmt.Sprint(i % maxPendingEach))
	}
	if p.pending != 0 || len(p.each) != 0 {
		t.Errorf("%d calls of %d senders are left", p.pending, len(p.each))
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPool(maxPendingEach, maxRunning)
		for range maxRunning {
			must(t, p.start(t.Context()))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.start(ctx); err == nil || errorName(err) != errLimitsExceeded {
			t.Errorf("one running call too many: %v", err)
		}
		p.stop()
		must(t, p.start(t.Context()))
	})
}

// The context that the service gets ends when the time for a call is over.
func TestCallsHaveATimeLimit(t *testing.T) {
	r := newRig(t)
	r.api.setFault(func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > callTimeout || left < callTimeout-5*time.Second {
			t.Errorf("the call may last %v", left)
		}
		return fmt.Errorf("waiting: %w", context.DeadlineExceeded)
	})
	wantError(t, r.call("Reload").Err, errTimeout, "waiting")
}
