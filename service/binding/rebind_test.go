package binding

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// memory holds bridges as the service does.
type memory struct{ bridges []Bridge }

func (m *memory) Bridges(networks []string) (out []Bridge) {
	for _, b := range m.bridges {
		if networks == nil || slices.Contains(networks, b.Network) {
			out = append(out, b)
		}
	}
	return out
}

func (m *memory) Update(_ context.Context, networks []string, next func(Bridge) (State, bool)) {
	for i, b := range m.bridges {
		if networks != nil && !slices.Contains(networks, b.Network) {
			continue
		}
		if s, ok := next(b); ok {
			m.bridges[i].State = s
		}
	}
}

func (m *memory) Released(context.Context, string) bool { return true }

// emptied is a firewalld that has just reloaded: no interface is in a zone. Each
// call to bind some is seen before it is answered.
type emptied struct {
	bound  map[string]string
	binds  func([]zones.Binding)
	refuse error
}

func (f *emptied) Installed(context.Context) (zones.Installed, error) { return running, nil }

func (f *emptied) Interfaces(context.Context) (map[string]string, error) { return f.bound, nil }

func (f *emptied) BindAll(_ context.Context, bindings []zones.Binding) []error {
	f.binds(bindings)
	errs := make([]error, len(bindings))
	for i, b := range bindings {
		if errs[i] = f.refuse; f.refuse == nil {
			f.bound[b.Interface] = b.Zone
		}
	}
	return errs
}

func (f *emptied) Unbind(context.Context, string, string) error { return nil }
func (f *emptied) Unanswered() time.Duration                    { return 0 }
func (f *emptied) Answer(context.Context) error                 { return nil }

// manyBridges returns bridges that the service knows to be in zone libvirt.
func manyBridges(n int) []Bridge {
	bridges := make([]Bridge, n)
	for i := range bridges {
		name := fmt.Sprintf("virbr%d", i)
		bridges[i] = Bridge{Network: "net-" + name, Name: name, Iface: name, Mode: network.ModeNAT, State: State{Bound: "libvirt"}}
	}
	return bridges
}

// TestQueuedBridgesAreInNoZone: firewalld takes seconds to move many bridges after
// a reload, and until a bridge's turn comes it is in no zone.
func TestQueuedBridgesAreInNoZone(t *testing.T) {
	const n = 3 * atOnce
	known := &memory{manyBridges(n)}
	firewalld := &emptied{bound: map[string]string{}}
	calls := 0
	firewalld.binds = func(next []zones.Binding) {
		calls++
		for _, b := range known.bridges {
			turn := slices.ContainsFunc(next, func(z zones.Binding) bool { return z.Interface == b.Iface })
			zone := firewalld.bound[b.Iface]
			switch {
			case turn: // its zone is changing
			case b.State.Bound != zone:
				t.Errorf("call %d: %s is said to be in zone %q, and is in %q", calls, b.Iface, b.State.Bound, zone)
			case (b.State.Problem.ID == finding.ZoneNotBound) != (zone == "") || b.State.Retry != (zone == ""):
				t.Errorf("call %d: %s in zone %q: %q, retry %v", calls, b.Iface, zone, b.State.Problem.ID, b.State.Retry)
			}
		}
	}
	binder := New(Config{Zones: firewalld, Networks: known, Log: slog.New(slog.DiscardHandler)})
	s, err := binder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.End()
	if mended := s.Rebind(t.Context(), AllAnew); len(mended) != n || calls != 3 {
		t.Errorf("%d bridges moved in %d calls", len(mended), calls)
	}
	for _, b := range known.bridges {
		if b.State.Bound != "libvirt" || b.State.Problem.ID != "" || b.State.Retry {
			t.Errorf("in the end %s: %+v", b.Iface, b.State)
		}
	}
}

// TestQueuedBridgesKeepTheirProblem: a bridge that firewalld has refused is known to
// be outside its zone, and each further try changes no state.
func TestQueuedBridgesKeepTheirProblem(t *testing.T) {
	known := &memory{manyBridges(2 * atOnce)}
	firewalld := &emptied{bound: map[string]string{}, refuse: fmt.Errorf("INVALID_NAME")}
	firewalld.binds = func([]zones.Binding) {}
	binder := New(Config{Zones: firewalld, Networks: known, Log: slog.New(slog.DiscardHandler)})
	s, err := binder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.End()
	s.Rebind(t.Context(), AllAnew)
	before := slices.Clone(known.bridges)
	firewalld.binds = func([]zones.Binding) {
		if !slices.Equal(before, known.bridges) {
			t.Error("a further try changed the states before it had an answer")
		}
	}
	s.Rebind(t.Context(), Retries)
	if !slices.Equal(before, known.bridges) {
		t.Error("a further try that failed alike changed the states")
	}
}
