package tests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// operation is a call that consists of several steps.
type operation struct {
	name string
	do   func(ctx context.Context, w *world) error
}

func operations() []operation {
	add := func(doc string, o service.ChangeOptions) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error { return addXML(ctx, w.svc, doc, o) }
	}
	update := func(name string, persistent bool, pairs ...any) func(context.Context, *world) error {
		settings := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			settings[pairs[i].(string)] = pairs[i+1]
		}
		return func(ctx context.Context, w *world) error {
			return w.svc.UpdateNetwork(ctx, name, settings, service.ChangeOptions{Persistent: persistent})
		}
	}
	remove := func(name string, persistent bool) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			return w.svc.RemoveNetwork(ctx, name, service.ChangeOptions{Persistent: persistent})
		}
	}
	zoned := func(doc, zone string) string {
		return strings.Replace(doc, "<bridge ", "<bridge zone='"+zone+"' ", 1)
	}
	fresh := netXML("new", "virbr4", "nat", "10.4.0.1/24")
	return append(moves(), []operation{
		{"add", add(fresh, service.ChangeOptions{})},
		{"add for good", add(fresh, service.ChangeOptions{Persistent: true})},
		{"add with a zone", add(zoned(fresh, "trusted"), service.ChangeOptions{})},
		// firewalld has virbr5 in zone work before anybody asks for it.
		{"add with a zone, bridge in another", add(zoned(netXML("new", "virbr5", "nat", "10.5.0.1/24"), "trusted"), service.ChangeOptions{Persistent: true})},
		{"replace", add(netXML("runtime", "virbr2", "route", "10.2.0.1/24"), service.ChangeOptions{Replace: true})},
		{"replace for good", add(netXML("runtime", "virbr2", "route", "10.2.0.1/24"), service.ChangeOptions{Replace: true, Persistent: true})},
		{"replace with another bridge and a zone", add(zoned(netXML("kept", "virbr5", "nat", "10.5.0.1/24"), "trusted"), service.ChangeOptions{Replace: true})},
		{"update zone", update("kept", true, "Zone", "trusted")},
		{"update zone of a changed one", update("changed", true, "Zone", "trusted")},
		{"update bridge", update("kept", false, "Bridge", "virbr4", "Addresses", []string{"10.4.0.1/24"})},
		{"update bridge and zone", update("kept", true, "Bridge", "virbr5", "Zone", "trusted", "Addresses", []string{"10.5.0.1/24"})},
		{"update subnet", update("runtime", false, "Addresses", []string{"10.77.0.1/24"})},
		{"update mode", update("kept", false, "ForwardMode", "route", "NATIPv6", false)},
		{"update to open with a zone", update("runtime", true, "ForwardMode", "open", "Zone", "trusted")},
		{"update to open", update("runtime", true, "ForwardMode", "open")},
		{"remove runtime", remove("runtime", false)},
		{"remove until reload", remove("kept", false)},
		{"remove for good", remove("changed", true)},
		{"reload", func(ctx context.Context, w *world) error {
			w.write("kept.xml", netXML("kept", "virbr5", "route", "10.5.0.1/24"))
			w.write("by hand.xml", netXML("byhand", "virbr1", "nat", "10.1.0.1/24"))
			return w.svc.Reload(ctx)
		}},
		{"bind", func(ctx context.Context, w *world) error {
			_, err := w.svc.BindInterface(ctx, "virbr1", "trusted", nil)
			return err
		}},
		{"unbind", func(ctx context.Context, w *world) error { return w.svc.UnbindInterface(ctx, "virbr1", nil) }},
	}...)
}

// newFailureRig is a host with bridges and a firewalld that has our zones, and
// virbr5 in zone work before anybody asks for it.
func newFailureRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.zoneFiles(allZones...)
	r.Firewalld("nftables")
	for i := range 5 {
		r.Bridge(fmt.Sprintf("virbr%d", i+1), fmt.Sprintf("10.%d.0.1/24", i+1))
	}
	r.must(r.firewalldCall("zone.changeZoneOfInterface", "work", "virbr5"))
	return r
}

// TestFailedCallsChangeNothing makes each step of each call fail in turn, once
// before it is done and once after, and compares all there is.
func TestFailedCallsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newFailureRig(t)
	client := zones.New(r.bus, slog.New(slog.DiscardHandler))
	for _, op := range operations() {
		for _, after := range []bool{false, true} {
			name := op.name
			if after {
				name += ", answers lost"
			}
			t.Run(name, func(t *testing.T) { failEachStep(t, r, client, op, after) })
		}
	}
}

// failEachStep tries until a call of the operation is left out: it has no more.
func failEachStep(t *testing.T, r *rig, client *zones.Client, op operation, after bool) {
	w := newWorld(t, r.Host, client)
	defer func() { rest(r, w) }()
	var failed []string
	for at := 1; ; at++ {
		prepare(op, w)
		before := w.state()
		w.told()
		w.f.arm(at, after)
		err := op.do(w.f.mark(context.Background()), w)
		calls := w.f.disarm()
		if len(calls) < at {
			if err != nil {
				t.Fatalf("without a failure: %v", err)
			}
			t.Logf("steps %q, of which failed the call: %q", calls, failed)
			if len(failed) == 0 {
				t.Error("no step can fail this call")
			}
			return
		}
		when := fmt.Sprintf("%s, call %d, failed", calls[at-1], at)
		if err == nil {
			// A zone that the network did not ask for fails no call.
			w.wantRepaired(when)
			rest(r, w)
			w = newWorld(t, r.Host, client)
			continue
		}
		failed = append(failed, calls[at-1])
		if !errors.Is(err, errInjected) {
			t.Errorf("%s: %v", when, err)
		}
		if diff := cmp.Diff(before, w.state()); diff != "" {
			t.Fatalf("%s and changed something (-before +after):\n%s", when, diff)
		}
		if events := w.told(); len(events) > 0 {
			t.Errorf("%s and told %q", when, events)
		}
		if n, err := w.svc.Reapply(context.Background()); n != 0 || err != nil {
			t.Errorf("%s and left %d networks to repair, %v", when, n, err)
		}
	}
}

// prepare does what an operation finds, so that it is part of what was before.
func prepare(op operation, w *world) {
	if strings.HasPrefix(op.name, "reload") {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // it writes its files and gets no further
		_ = op.do(ctx, w)
	}
}

// rest ends the world and puts the bridge back that firewalld had elsewhere.
func rest(r *rig, w *world) {
	w.close()
	r.must(r.firewalldCall("zone.changeZoneOfInterface", "work", "virbr5"))
}

// wantRepaired checks that one comparison later nothing is left to do.
func (w *world) wantRepaired(when string) {
	w.t.Helper()
	for range 2 {
		n, err := w.svc.Reapply(context.Background())
		if err != nil {
			w.t.Errorf("%s, then reapplied: %v", when, err)
		}
		if n == 0 {
			return
		}
	}
	w.t.Errorf("%s: a second comparison still finds something", when)
}

// TestKilledAtEachStep ends the service at each step of each call in turn, with
// nothing taken back. The next start gives the old state or the new one.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	r := newFailureRig(t)
	client := zones.New(r.bus, slog.New(slog.DiscardHandler))
	for _, op := range operations() {
		t.Run(op.name, func(t *testing.T) { killAtEachStep(t, r, client, op) })
	}
}

func killAtEachStep(t *testing.T, r *rig, client *zones.Client, op operation) {
	run := func(at int) (restarted state, calls []string) {
		w := newWorld(t, r.Host, client)
		defer rest(r, w)
		prepare(op, w)
		w.f.armKill(at)
		err := op.do(w.f.mark(context.Background()), w)
		if calls = w.f.disarm(); err != nil && len(calls) < at {
			t.Fatal(err)
		}
		w.stop()
		w.start()
		w.compare()
		if n, err := w.svc.Reapply(context.Background()); n != 0 || err != nil {
			t.Errorf("killed at step %d: a start left %d networks to repair, %v", at, n, err)
		}
		restarted = w.state()
		restarted.Kernel = uncounted(restarted.Kernel)
		return restarted, calls
	}
	const never = 1000
	// The first step fails, so that nothing is done: but files that were changed
	// by hand before a reload speak at a start too.
	before, _ := run(1)
	done, calls := run(never)
	for at, call := range calls {
		if at == 0 || slices.Contains([]string{"Query", "QueryIndex", "Installed", "Interfaces", "Read", "Counters", "Links"}, call) {
			continue // to end while looking is to end before the next change
		}
		got, _ := run(at + 1)
		if !cmp.Equal(got, before) && !cmp.Equal(got, done) {
			t.Errorf("killed at step %d of %q, neither the old state nor the new one (-new +got):\n%s\n(-old +got):\n%s",
				at+1, calls, cmp.Diff(done, got), cmp.Diff(before, got))
		}
	}
}

// uncounted leaves the counters' values out: those of a network that a Replace
// was about to end may go on.
func uncounted(lines []string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "packets ") })
}
