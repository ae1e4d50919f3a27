// Package rig makes throw-away hosts with a system bus and the service on it,
// for the tests that need whole hosts: the real programs, real packets, the real
// firewalld, polkit and libvirt. The folders beside it hold those tests.
//
// The daemon and the command line are built once for all packages of a test run.
// A warning or an error in the service's log fails a test that did not Announce
// it.
package rig

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// CallTimeout is how long a test waits for what takes a moment: a neighbour may
// hold the kernel's lock on links for half of it.
const CallTimeout = time.Minute

// Rig is a throw-away host with a system bus and the service on it. Its methods
// fail the test on errors.
type Rig struct {
	*host.Host
	*Client // root's
	T       testing.TB
	Daemon  *host.Process // nil where systemd starts the service

	Firewalld *Firewalld
	Polkit    *Polkit
	Findings  *Findings

	complaints
}

// New makes the host and the bus. The service is not started yet, so that a test
// may put things there first.
func New(t testing.TB, options ...host.Option) *Rig {
	t.Helper()
	h := host.New(t, options...)
	Install(t, h)
	h.Bus()
	return Over(t, h)
}

// Started is New with the service running.
func Started(t testing.TB, options ...host.Option) *Rig {
	t.Helper()
	r := New(t, options...)
	r.StartDaemon()
	return r
}

// Over returns a Rig on a host that already has a bus.
func Over(t testing.TB, h *host.Host) *Rig {
	t.Helper()
	conn, err := h.DialBus(context.Background())
	Must(t, err)
	t.Cleanup(func() { conn.Close() })
	r := &Rig{Host: h, Client: &Client{conn}, T: t}
	r.Firewalld, r.Polkit, r.Findings = &Firewalld{r}, &Polkit{r}, &Findings{r}
	t.Cleanup(func() { r.check(t, h.Processes()) }) // while the processes are still there
	return r
}

// Names returns the networks that the service has, sorted.
func (r *Rig) Names() []string {
	r.T.Helper()
	var paths []godbus.ObjectPath
	r.OK(r.Manager("ListNetworks"), &paths)
	out := []string{}
	for _, p := range paths {
		out = append(out, lastElement(p))
	}
	return Sorted(out)
}

// WantNames checks which networks there are, on the bus and in the kernel.
func (r *Rig) WantNames(when string, want ...string) {
	r.T.Helper()
	if got := r.Names(); !slices.Equal(got, want) {
		r.T.Errorf("%s: networks %q, want %q", when, got, want)
	}
	table := r.Table()
	for _, name := range []string{"kept", "other", "runtime", "byhand"} {
		if in := InTable(table, name); in != slices.Contains(want, name) {
			r.T.Errorf("%s: network %s in the kernel: %v", when, name, in)
		}
	}
}

// Property returns a property of a network.
func (r *Rig) Property(network, name string) any {
	r.T.Helper()
	var v godbus.Variant
	r.OK(r.Call(dbus.NetworkPath(network), PropertiesName+".Get", NetworkName, name), &v)
	return v.Value()
}

// ManagerProperty returns a property of the manager that is text.
func (r *Rig) ManagerProperty(name string) string {
	r.T.Helper()
	v, err := r.Conn.Object(ManagerName, ManagerPath).GetProperty(ManagerName + "." + name)
	Must(r.T, err)
	s, _ := v.Value().(string)
	return s
}

// State returns a network's state and the reason for it.
//
// Once a test has seen a network in a state other than active, the service's log
// line about that state counts as announced.
func (r *Rig) State(network string) (state, reason string) {
	r.T.Helper()
	state = r.Property(network, "State").(string)
	if state != "active" {
		r.saw(network, state)
	}
	return state, r.Property(network, "StateReason").(string)
}

// AwaitState waits until a network is in a state, and returns how long it took.
func (r *Rig) AwaitState(network, want string) time.Duration {
	r.T.Helper()
	start := time.Now()
	for {
		got, reason := r.State(network)
		if got == want {
			return time.Since(start)
		}
		if time.Since(start) > host.Patient(CallTimeout) {
			r.T.Fatalf("network %s is %s (%s), not %s", network, got, reason, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Counters returns a network's counters.
func (r *Rig) Counters(network string) map[string]uint64 {
	r.T.Helper()
	var c map[string]uint64
	r.OK(r.Network(network, "GetCounters"), &c)
	return c
}

// SwitchTo moves all networks to a backend.
func (r *Rig) SwitchTo(backend string) {
	r.T.Helper()
	r.OK(r.Manager("SetBackend", backend, Opts()))
	if got := r.ManagerProperty("Backend"); got != backend {
		r.T.Fatalf("the backend is %s, want %s", got, backend)
	}
}

// The sysctls that switch forwarding on.
const (
	Forward4 = "net.ipv4.ip_forward"
	Forward6 = "net.ipv6.conf.all.forwarding"
)

// Sysctl returns a setting of the host's kernel.
func (r *Rig) Sysctl(key string) string {
	r.T.Helper()
	var value []byte
	Must(r.T, r.Inside(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		return err
	}))
	return strings.TrimSpace(string(value))
}
