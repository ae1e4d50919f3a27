package dbus

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBus is a real dbus-daemon of our own, with the project's policy.
type testBus struct{ *privatebus.Bus }

func startBus(t testing.TB) *testBus {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test must run as root: the bus policy lets only root own the name")
	}
	return &testBus{privatebus.StartSystem(t, BusName+".conf")}
}

// connect returns a new connection, such as another program has.
func (b *testBus) connect(t testing.TB) *Bus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busTimeout)
	defer cancel()
	c, err := Connect(ctx, b.Address)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// rig is a bus, a server on it, the fake service behind it and a client.
type rig struct {
	bus    *testBus
	server *Server
	served *Bus
	api    *fakeAPI
	client *Bus
	logs   *logBuffer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigWith(t, nil)
}

// newRigWith makes a rig with an Authorizer; nil means a Gate whose authority
// lets everybody read, and nobody change.
func newRigWith(t testing.TB, auth Authorizer) *rig {
	t.Helper()
	r := &rig{bus: startBus(t), api: newFakeAPI(), logs: &logBuffer{}}
	r.served = r.bus.connect(t)
	if auth == nil {
		auth = NewGate(r.served.Conn(), readersOnly{})
	}
	server, err := New(r.served, r.api, auth, slog.New(slog.NewTextHandler(r.logs, nil)))
	must(t, err)
	r.server = server
	r.api.notify = server.Notify
	must(t, server.Start(t.Context()))
	t.Cleanup(func() {
		server.Close()
		if !t.Failed() && r.logs.unexpected() {
			t.Errorf("the server logged:\n%s", r.logs)
		}
	})
	r.client = r.bus.connect(t)
	return r
}

func (r *rig) object(path godbus.ObjectPath) godbus.BusObject {
	return r.client.Conn().Object(BusName, path)
}

// call calls a method of the manager.
func (r *rig) call(method string, args ...any) *godbus.Call {
	return r.callAt(ManagerPath, managerInterface+"."+method, args...)
}

func (r *rig) callAt(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	return r.object(path).CallWithContext(ctx, method, 0, args...)
}

// add adds a network with the given name and nothing remarkable.
func (r *rig) add(t testing.TB, name string) godbus.ObjectPath {
	t.Helper()
	var path godbus.ObjectPath
	must(t, r.call("AddNetwork", name, plainSettings(name), noOptions()).Store(&path))
	return path
}

func plainSettings(name string) map[string]godbus.Variant {
	return map[string]godbus.Variant{
		"Bridge":      godbus.MakeVariant(bridgeOf(name)),
		"ForwardMode": godbus.MakeVariant("nat"),
		"Addresses":   godbus.MakeVariant([]string{"192.168.150.1/24"}),
	}
}

func bridgeOf(name string) string {
	return fmt.Sprintf("br-%08x", crc32.ChecksumIEEE([]byte(name)))
}

func noOptions() map[string]godbus.Variant { return map[string]godbus.Variant{} }

// errorOf returns the name of the error that a call ended with; "" for none.
func errorOf(err error) string {
	switch e := err.(type) {
	case nil:
		return ""
	case godbus.Error:
		return e.Name
	}
	return "local: " + err.Error()
}

func wantError(t testing.TB, err error, name, text string) {
	t.Helper()
	if errorOf(err) != name {
		t.Fatalf("the call ended with %q (%v), want %q", errorOf(err), err, name)
	}
	if err != nil && !strings.Contains(err.Error(), text) {
		t.Fatalf("the error's text is %q, which does not contain %q", err, text)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pause makes the bus stop reading, as one that hangs does.
func (b *testBus) pause(t testing.TB) {
	t.Helper()
	must(t, b.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = b.Signal(syscall.SIGCONT) })
}

func (b *testBus) resume(t testing.TB) {
	t.Helper()
	must(t, b.Signal(syscall.SIGCONT))
}

func namedNetwork(t testing.TB, name string) network.Network {
	t.Helper()
	n, err := network.FromSettings(name, map[string]any{
		"Bridge": bridgeOf(name), "Addresses": []string{"192.168.150.1/24", "fd00::1/64"},
	})
	must(t, err)
	return n
}
