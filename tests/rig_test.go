package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	managerPath = godbus.ObjectPath("/org/virtfirewall/NetworkFirewall1")
	managerName = "org.virtfirewall.NetworkFirewall1"
	networkName = managerName + ".Network"
	errorPrefix = managerName + ".Error."

	polkitPolicy = "org.virtfirewall.networkfirewall1.policy"
	callTimeout  = time.Minute // a neighbour may hold the kernel's lock on links for half of it
)

// rig is a throw-away host with a system bus and the service on it.
type rig struct {
	*host.Host
	t      testing.TB
	Daemon *host.Process
	bus    *godbus.Conn

	announced []string // parts of log lines that the test expects
	seen      sync.Map // states of networks that the test saw, as parts of log lines
}

// newRig makes the host and the bus; the service is not started yet, so that a
// test may put things there first.
func newRig(t testing.TB, options ...host.Option) *rig {
	t.Helper()
	r := &rig{Host: host.New(t, options...), t: t}
	t.Cleanup(r.checkLogs) // while the host and its processes are still there
	r.install()
	r.Bus()
	conn, err := r.DialBus(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.bus = conn
	return r
}

// startedRig is newRig with the service running.
func startedRig(t testing.TB, options ...host.Option) *rig {
	t.Helper()
	r := newRig(t, options...)
	r.StartDaemon()
	return r
}

func (r *rig) install() {
	r.t.Helper()
	for from, to := range map[string]string{
		filepath.Join(programs, "virtfirewalld"):   "/usr/sbin/virtfirewalld",
		filepath.Join(programs, "virtfirewallctl"): "/usr/bin/virtfirewallctl",
		"../dbus/" + managerName + ".conf":         "/usr/share/dbus-1/system.d/" + managerName + ".conf",
		"../polkit/" + polkitPolicy:                "/usr/share/polkit-1/actions/" + polkitPolicy,
	} {
		if err := r.CopyIn(from, to); err != nil {
			r.t.Fatal(err)
		}
	}
}

// StartDaemon starts the service and waits until its name is on the bus.
func (r *rig) StartDaemon(args ...string) {
	r.t.Helper()
	r.Daemon = r.Start("virtfirewalld", append([]string{"/usr/sbin/virtfirewalld"}, args...)...)
	r.AwaitName(managerName)
}

// StopDaemon ends the service as systemd would.
func (r *rig) StopDaemon() {
	r.t.Helper()
	if err := r.Daemon.Stop(); err != nil {
		r.t.Fatalf("stopping the service: %v\n%s", err, r.Daemon.Log())
	}
	r.awaitGone()
}

// KillDaemon ends the service with SIGKILL.
func (r *rig) KillDaemon() {
	r.t.Helper()
	_ = r.Daemon.Kill() // it says that it was killed
	r.awaitGone()
}

// awaitGone waits until the bus has noticed that the service is gone: until
// then it would send calls to nobody.
func (r *rig) awaitGone() {
	r.t.Helper()
	for deadline := time.Now().Add(host.Patient(callTimeout)); ; time.Sleep(time.Millisecond) {
		var there bool
		r.must(r.bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, managerName), &there)
		if !there {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the service ended, and its name is still on the bus")
		}
	}
}

// Call calls a method of an object of the service.
func (r *rig) Call(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(callTimeout))
	defer cancel()
	return r.bus.Object(managerName, path).CallWithContext(ctx, method, 0, args...)
}

// Manager calls a method of the manager.
func (r *rig) Manager(method string, args ...any) *godbus.Call {
	return r.Call(managerPath, managerName+"."+method, args...)
}

// Network calls a method of a network's object.
func (r *rig) Network(name, method string, args ...any) *godbus.Call {
	return r.Call(dbus.NetworkPath(name), networkName+"."+method, args...)
}

// must fails the test where a call failed, and stores its answer.
func (r *rig) must(call *godbus.Call, into ...any) {
	r.t.Helper()
	if call.Err != nil {
		r.t.Fatalf("%s: %v", call.Method, call.Err)
	}
	if len(into) > 0 {
		if err := call.Store(into...); err != nil {
			r.t.Fatalf("%s: %v", call.Method, err)
		}
	}
}

// wantError checks that a call failed with an error of the contract; name is
// its last part, or a full name.
func (r *rig) wantError(call *godbus.Call, name string) {
	r.t.Helper()
	if !strings.Contains(name, ".") {
		name = errorPrefix + name
	}
	var e godbus.Error
	if !errors.As(call.Err, &e) || e.Name != name {
		r.t.Errorf("%s: got %v, want %s", call.Method, call.Err, name)
	}
}

// opts makes an options argument: opts("Persistent", true).
func opts(pairs ...any) map[string]godbus.Variant {
	m := map[string]godbus.Variant{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = godbus.MakeVariant(pairs[i+1])
	}
	return m
}

// AddXML adds a network from a libvirt document.
func (r *rig) AddXML(xml string, pairs ...any) *godbus.Call {
	return r.Manager("AddNetworkFromXML", xml, opts(pairs...))
}

// Property reads a property of a network.
func (r *rig) Property(network, name string) any {
	r.t.Helper()
	var v godbus.Variant
	r.must(r.Call(dbus.NetworkPath(network), "org.freedesktop.DBus.Properties.Get", networkName, name), &v)
	return v.Value()
}

// State is a network's state and the reason for it.
//
// A test that saw a network in another state than active knows of it: the
// service's line about that is no complaint that nobody expected.
func (r *rig) State(network string) (state, reason string) {
	r.t.Helper()
	state = r.Property(network, "State").(string)
	if state != "active" {
		r.seen.Store([2]string{" network=" + network + " ", " state=" + state}, true)
	}
	return state, r.Property(network, "StateReason").(string)
}

// AwaitState waits until a network is in a state, and returns how long it took.
func (r *rig) AwaitState(network, want string) time.Duration {
	r.t.Helper()
	start := time.Now()
	for {
		got, reason := r.State(network)
		if got == want {
			return time.Since(start)
		}
		if time.Since(start) > host.Patient(callTimeout) {
			r.t.Fatalf("network %s is %s (%s), not %s", network, got, reason, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Counters are a network's counters.
func (r *rig) Counters(network string) map[string]uint64 {
	r.t.Helper()
	var c map[string]uint64
	r.must(r.Network(network, "GetCounters"), &c)
	return c
}

// Table is the service's table as the kernel lists it; "" for none.
func (r *rig) Table() string {
	out, err := r.Run("nft", "list", "table", "inet", "libvirt_network")
	if err != nil && strings.Contains(out, "No such file") {
		return ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return withoutProgram(out)
}

// nft runs nft, and gives what it lists so that it can be compared.
func nft(h *host.Host, args ...string) string {
	return withoutProgram(h.Must(append([]string{"nft"}, args...)...))
}

// program is the remark that nft makes of a table's owner. It looks for the
// name in /proc, and now and then does not find it.
var program = regexp.MustCompile(`(?m) # progname .*$`)

func withoutProgram(listing string) string { return program.ReplaceAllString(listing, "") }

// netXML is a network as libvirt writes it; ips are "192.168.122.1/24".
func netXML(name, bridge, mode string, ips ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<network><name>%s</name>", name)
	switch mode {
	case "isolated":
	case "nat6":
		b.WriteString("<forward mode='nat'><nat ipv6='yes'/></forward>")
	default:
		fmt.Fprintf(&b, "<forward mode='%s'/>", mode)
	}
	fmt.Fprintf(&b, "<bridge name='%s'/>", bridge)
	for _, ip := range ips {
		addr, bits, _ := strings.Cut(ip, "/")
		family := "ipv4"
		if strings.Contains(addr, ":") {
			family = "ipv6"
		}
		fmt.Fprintf(&b, "<ip family='%s' address='%s' prefix='%s'/>", family, addr, bits)
	}
	b.WriteString("</network>")
	return b.String()
}

// corpus is a file of the network documents that the parser is tested with.
func corpus(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../service/network/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
