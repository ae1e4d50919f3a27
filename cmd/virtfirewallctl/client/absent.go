package client

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	systemdManager = "org.freedesktop.systemd1.Manager"
	unitName       = "virtfirewalld.service"
	absentTimeout  = 2 * time.Second
)

// What to do about a service that does not run, by the reason.
const (
	notThere     = "virtfirewalld is not running; start it with systemctl start virtfirewalld"
	notEnabled   = "virtfirewalld is not running and not enabled; start it with systemctl enable --now virtfirewalld"
	isMasked     = "virtfirewalld is masked, so nothing can start it; systemctl unmask virtfirewalld, then systemctl start virtfirewalld"
	hasFailed    = "virtfirewalld failed and is not running; see journalctl -u virtfirewalld, mend it, then systemctl restart virtfirewalld"
	notInstalled = "virtfirewalld is not installed on this host (systemd has no unit virtfirewalld.service); install the package virtfirewalld"
)

// withReason replaces the bus's reason for a service that does not run by
// systemd's where that is more specific: the bus's own text differs between its
// implementations and by how the start was refused, and may even be "File
// exists" for a masked unit.
func (c *Client) withReason(ctx context.Context, err error) error {
	var f *failure
	if !errors.As(err, &f) || !f.start {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), absentTimeout)
	defer cancel()
	if c.running(ctx) {
		return err
	}
	if why := c.absent(ctx); why != "" {
		return unreachable("%s", why)
	}
	if f.class == nil {
		return notStarted(f.text)
	}
	return err
}

// running reports whether the service's name has an owner, or that cannot be
// determined.
func (c *Client) running(ctx context.Context) (is bool) {
	err := c.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, BusName).Store(&is)
	return is || err != nil
}

// absent returns why the service cannot run, according to systemd; "" for a unit
// that could be started, and where there is no systemd.
func (c *Client) absent(ctx context.Context) string {
	state, err := c.unitFileState(ctx)
	switch {
	case noSuchUnit(err):
		return notInstalled
	case strings.HasPrefix(state, "masked"):
		return isMasked
	case c.unitFailed(ctx):
		return hasFailed
	case state == "disabled":
		return notEnabled
	}
	return ""
}

func (c *Client) unitFileState(ctx context.Context) (state string, err error) {
	err = c.conn.Object(systemdName, systemdPath).
		CallWithContext(ctx, systemdManager+".GetUnitFileState", dbus.FlagNoAutoStart, unitName).Store(&state)
	return state, err
}

// unitFailed reports whether the unit was started and failed. A unit that was
// never loaded did not.
func (c *Client) unitFailed(ctx context.Context) bool {
	var unit dbus.ObjectPath
	err := c.conn.Object(systemdName, systemdPath).
		CallWithContext(ctx, systemdManager+".GetUnit", dbus.FlagNoAutoStart, unitName).Store(&unit)
	if err != nil {
		return false
	}
	var state dbus.Variant
	err = c.conn.Object(systemdName, unit).
		CallWithContext(ctx, propertiesIface+".Get", dbus.FlagNoAutoStart, systemdName+".Unit", "ActiveState").Store(&state)
	return err == nil && state.Value() == "failed"
}

// noSuchUnit reports whether systemd has no file of that name; before 254 it
// returned the general error for it.
func noSuchUnit(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) &&
		(e.Name == "org.freedesktop.systemd1.NoSuchUnit" || e.Name == "org.freedesktop.DBus.Error.FileNotFound")
}
