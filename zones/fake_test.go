package zones_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

const (
	name       = "org.fedoraproject.FirewallD1"
	root       = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	config     = root + "/config"
	properties = "org.freedesktop.DBus.Properties"
)

// fake answers for firewalld what the real one does not on demand. It knows
// only the methods that it is given; others are unknown methods.
type fake struct {
	t       *testing.T
	address string
	conn    *dbus.Conn
}

// methods are functions by their names, as godbus exports them.
type methods map[string]any

// privateBus starts a bus of the test's own and gives its address.
func privateBus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	conf := fmt.Sprintf(`<busconfig><listen>%s</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`, address)
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// The shell outlives neither the test nor its bus: its standard input ends
	// with the test's process, however that ends.
	cmd := exec.Command("sh", "-c", `dbus-daemon --config-file="$1" --nofork & read -r _; kill $!; wait`, "sh", file)
	leash, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leash.Close()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := dbus.Connect(address, dbus.WithContext(t.Context()))
		if err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// newFake makes a bus with a fake firewalld on it, and a client beside it.
func newFake(t *testing.T) (*fake, *zones.Client) {
	t.Helper()
	f := &fake{t: t, address: privateBus(t)}
	client := newClient(t, f.address)
	client.SetRoot(t.TempDir())
	f.appear()
	return f, client
}

// appear brings the fake onto the bus, without methods.
func (f *fake) appear() {
	f.t.Helper()
	conn, err := dbus.Connect(f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	f.conn = conn
	if _, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) export(path dbus.ObjectPath, iface string, m methods) {
	f.t.Helper()
	if err := f.conn.ExportMethodTable(m, path, iface); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) emit(member string, args ...any) {
	f.t.Helper()
	if err := f.conn.Emit(root, name+"."+member, args...); err != nil {
		f.t.Fatal(err)
	}
}

// exception is an error as firewalld answers it.
func exception(text string) *dbus.Error {
	return dbus.NewError(name+".Exception", []any{text})
}
