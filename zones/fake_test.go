package zones_test

import (
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

const (
	name       = "org.fedoraproject.FirewallD1"
	root       = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	config     = root + "/config"
	properties = "org.freedesktop.DBus.Properties"
)

// fake is a fake firewalld, for answers that the real one cannot be made to
// return. It has only the methods that a test exports.
type fake struct {
	t       *testing.T
	address string
	conn    *dbus.Conn
}

// methods are functions by name, as godbus exports them.
type methods map[string]any

// newFake returns a fake firewalld on a private bus, and a client of it.
func newFake(t *testing.T) (*fake, *zones.Client) {
	t.Helper()
	f := &fake{t: t, address: privatebus.Start(t).Address}
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

// exception returns an error as firewalld does.
func exception(text string) *dbus.Error {
	return dbus.NewError(name+".Exception", []any{text})
}
