package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// escape implements the contract's rule for object paths a second time.
func escape(name string) dbus.ObjectPath {
	safe := regexp.MustCompile(`^[A-Za-z0-9]$`)
	var b strings.Builder
	for _, c := range []byte(name) {
		if safe.Match([]byte{c}) {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02x", c)
	}
	return ManagerPath + "/network/" + dbus.ObjectPath(b.String())
}

func FuzzNameOf(f *testing.F) {
	for _, name := range []string{"default", "lab-net", "_", "Büro 1", "\xff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got := nameOf(escape(name)); got != name {
			t.Errorf("%q comes back as %q", name, got)
		}
		nameOf(dbus.ObjectPath(name))
		nameOf(ManagerPath + "/network/" + dbus.ObjectPath(name))
	})
}

func TestNameOfStrangePaths(t *testing.T) {
	for _, path := range []dbus.ObjectPath{
		"/", ManagerPath, ManagerPath + "/network/a_2", ManagerPath + "/network/a_", ManagerPath + "/network/_zz",
	} {
		if got := nameOf(path); got != "" {
			t.Errorf("%s is named %q", path, got)
		}
	}
}

func TestExplain(t *testing.T) {
	reply := func(name, text string) error { return dbus.Error{Name: name, Body: []any{text}} }
	for _, test := range []struct {
		name  string
		err   error
		class error
		text  string
	}{
		{"no such network", reply(errorPrefix+"NetworkNotFound", "there is no network x"), ErrNotFound, "there is no network x"},
		{"no such zone", reply(errorPrefix+"ZoneNotFound", "no zone x"), ErrNotFound, "no zone x"},
		{"no such object", reply("org.freedesktop.DBus.Error.UnknownObject", "no object"), ErrNotFound, "no object"},
		{"denied", reply("org.freedesktop.DBus.Error.AccessDenied", "only root may"), ErrNotAuthorised, "only root may"},
		{"denied by dbus-broker", reply("org.freedesktop.DBus.Error.AccessDenied", "Sender is not authorized to send message"), ErrNotAuthorised, notAllowed},
		{"not asked", reply("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "authenticate"), ErrNotAuthorised, "authenticate"},
		{"not there", reply("org.freedesktop.DBus.Error.ServiceUnknown", "The name is not activatable"), ErrUnreachable, notThere},
		{"gone", reply("org.freedesktop.DBus.Error.NameHasNoOwner", "no owner"), ErrUnreachable, notThere},
		{"disabled unit", reply("org.freedesktop.systemd1.NoSuchUnit", "Unit dbus-x.service not found"), ErrUnreachable, "starting virtfirewalld: Unit dbus-x.service not found"},
		{"cut off", reply("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected"), ErrUnreachable, notAnswering},
		{"slow to start", reply("org.freedesktop.DBus.Error.TimedOut", "activation timed out"), ErrUnreachable, "starting virtfirewalld: activation timed out"},
		{"slow firewalld", reply("org.freedesktop.DBus.Error.Timeout", "firewalld did not answer"), nil, "firewalld did not answer"},
		{"masked unit", reply("org.freedesktop.systemd1.UnitMasked", "Unit x is masked"), ErrUnreachable, "starting virtfirewalld: Unit x is masked"},
		{"bus gone", dbus.ErrClosed, ErrUnreachable, "reading the networks: the connection to the system bus is closed"},
		{"end of file", io.EOF, ErrUnreachable, "reading the networks: the connection to the system bus is closed"},
		{"late", context.DeadlineExceeded, ErrUnreachable, "reading the networks: virtfirewalld did not answer in time"},
		{"interrupted", context.Canceled, context.Canceled, "reading the networks: context canceled"},
		{"a failure", reply(errorPrefix+"BridgeInUse", "virbr0 belongs to default"), nil, "virbr0 belongs to default"},
		{"a setting", reply(errorPrefix+"InvalidArgument", "NATPortRange: port 0 cannot be used"), nil, "<nat>: port 0 cannot be used"},
		{"no setting", reply(errorPrefix+"InvalidArgument", "Bridges: none"), nil, "Bridges: none"},
		{"older service", reply("org.freedesktop.DBus.Error.UnknownMethod", "no method M"), nil,
			"reading the networks: the service that runs is older than this program and cannot do it; restart it: systemctl restart virtfirewalld"},
		{"no text", dbus.Error{Name: errorPrefix + "ApplyFailed"}, nil, "reading the networks: virtfirewalld answered " + errorPrefix + "ApplyFailed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := explain("M", test.err)
			if got.Error() != test.text {
				t.Errorf("said %q, not %q", got, test.text)
			}
			for _, class := range []error{ErrNotFound, ErrNotAuthorised, ErrUnreachable} {
				if errors.Is(got, class) != (class == test.class) {
					t.Errorf("%v: is it %v? %v", got, class, errors.Is(got, class))
				}
			}
		})
	}
}
