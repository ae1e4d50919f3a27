package dbus

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busConfig is Debian's system.conf in short, with the project's own policy.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>%s</include>
</busconfig>
`

// testBus is a real dbus-daemon of our own.
type testBus struct {
	address string
	daemon  *exec.Cmd
}

func startBus(t testing.TB) *testBus {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test must run as root: the bus policy lets only root own the name")
	}
	policy, err := filepath.Abs(BusName + ".conf")
	must(t, err)
	// An abstract socket is reachable for every user, wherever TMPDIR is.
	b := &testBus{address: fmt.Sprintf("unix:abstract=virtfirewalld-test-%d-%d", os.Getpid(), rand.Uint64())}
	config := filepath.Join(t.TempDir(), "bus.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, busConfig, b.address, policy), 0o600))
	b.daemon = exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	out, err := b.daemon.StdoutPipe()
	must(t, err)
	var complaints bytes.Buffer
	b.daemon.Stderr = &complaints
	must(t, b.daemon.Start())
	t.Cleanup(func() {
		_ = b.daemon.Process.Kill()
		_ = b.daemon.Wait()
		if t.Failed() {
			t.Logf("dbus-daemon said: %s", &complaints)
		}
	})
	// It prints the address when it listens.
	_, err = out.Read(make([]byte, 256))
	must(t, err)
	return b
}

// connect gives a connection of its own, as other programs have one.
func (b *testBus) connect(t testing.TB) *Bus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busTimeout)
	defer cancel()
	c, err := Connect(ctx, b.address)
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

// newRigWith has an Authorizer of its own; nil means a Gate whose authority lets
// everybody read, and nobody change.
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

// errorOf is the name of the error that a call ended with; "" for none.
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
	must(t, b.daemon.Process.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = b.daemon.Process.Signal(syscall.SIGCONT) })
}

func (b *testBus) resume(t testing.TB) {
	t.Helper()
	must(t, b.daemon.Process.Signal(syscall.SIGCONT))
}

func namedNetwork(t testing.TB, name string) network.Network {
	t.Helper()
	n, err := network.FromSettings(name, map[string]any{
		"Bridge": bridgeOf(name), "Addresses": []string{"192.168.150.1/24", "fd00::1/64"},
	})
	must(t, err)
	return n
}
