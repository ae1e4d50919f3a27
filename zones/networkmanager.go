package zones

import (
	"context"

	"github.com/godbus/dbus/v5"
)

const nmName = "org.freedesktop.NetworkManager"

// nmTransient are those of NetworkManager's SettingsConnectionFlags that mark
// connections which it generated for what it found, or which end with their
// device. firewalld does not restore bindings of these.
const nmTransient = 0x2 | 0x4

// keptByNetworkManager reports whether firewalld itself puts an interface back
// into its zone after a reload, since NetworkManager wants it there. If
// NetworkManager does not run or does not answer, it returns false: the binding
// then counts as one that a reload loses.
func (c *Client) keptByNetworkManager(ctx context.Context, iface, zone, defaultZone string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	nm := nmClient{c.conn, ctx}
	var device dbus.ObjectPath
	if !nm.call("/org/freedesktop/NetworkManager", nmName+".GetDeviceByIpIface", &device, iface) {
		return false
	}
	active, ok := property[dbus.ObjectPath](nm, device, nmName+".Device", "ActiveConnection")
	if !ok || active == "/" {
		return false
	}
	if vpn, _ := property[bool](nm, active, nmName+".Connection.Active", "Vpn"); vpn {
		return false
	}
	profile, ok := property[dbus.ObjectPath](nm, active, nmName+".Connection.Active", "Connection")
	if !ok {
		return false
	}
	flags, ok := property[uint32](nm, profile, nmName+".Settings.Connection", "Flags")
	if !ok || flags&nmTransient != 0 {
		return false
	}
	var all map[string]map[string]dbus.Variant
	if !nm.call(profile, nmName+".Settings.Connection.GetSettings", &all) {
		return false
	}
	wanted, _ := all["connection"]["zone"].Value().(string)
	if wanted == "" {
		wanted = defaultZone
	}
	return wanted == zone
}

type nmClient struct {
	conn *dbus.Conn
	ctx  context.Context // of the one lookup that the client is for
}

func (nm nmClient) call(path dbus.ObjectPath, method string, out any, args ...any) bool {
	return nm.conn.Object(nmName, path).CallWithContext(nm.ctx, method, dbus.FlagNoAutoStart, args...).Store(out) == nil
}

func property[T any](nm nmClient, path dbus.ObjectPath, iface, name string) (T, bool) {
	var v dbus.Variant
	ok := nm.call(path, propertiesGet, &v, iface, name)
	value, isT := v.Value().(T)
	return value, ok && isT
}
