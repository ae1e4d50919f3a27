package polkit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Only an exact answer allows anything.
func TestRead(t *testing.T) {
	none := map[string]string{}
	for _, c := range []struct {
		body []any
		want Answer
		err  error
	}{
		{[]any{[]any{true, false, none}}, Allowed, nil},
		{[]any{[]any{true, false, map[string]string{"polkit.temporary_authorization_id": "tmpauthz1"}}}, Allowed, nil},
		{[]any{[]any{false, false, none}}, Denied, nil},
		{[]any{[]any{false, true, none}}, Challenge, nil},
		{[]any{[]any{false, false, map[string]string{"polkit.dismissed": "true"}}}, Dismissed, nil},
		{[]any{[]any{false, true, map[string]string{"polkit.dismissed": "true"}}}, Dismissed, nil},
		{[]any{[]any{true, true, none}}, Denied, ErrNonsense},
		{[]any{[]any{true, false}}, Denied, ErrNonsense},
		{[]any{[]any{true, false, none, none}}, Denied, ErrNonsense},
		{[]any{[]any{uint32(1), false, none}}, Denied, ErrNonsense},
		{[]any{[]any{true, false, "details"}}, Denied, ErrNonsense},
		{[]any{true, false, none}, Denied, ErrNonsense},
		{[]any{true}, Denied, ErrNonsense},
		{[]any{"yes"}, Denied, ErrNonsense},
		{nil, Denied, ErrNonsense},
	} {
		got, err := read(c.body)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v: %v (%v), want %v (%v)", c.body, got, err, c.want, c.err)
		}
	}
}

func TestExplain(t *testing.T) {
	reply := func(name, text string) error { return dbus.Error{Name: name, Body: []any{text}} }
	for _, c := range []struct {
		err    error
		want   error
		remedy string
	}{
		{reply("org.freedesktop.DBus.Error.ServiceUnknown", "not there"), ErrAbsent, "install or start"},
		{reply("org.freedesktop.DBus.Error.NameHasNoOwner", "no owner"), ErrAbsent, "install or start"},
		{reply("org.freedesktop.DBus.Error.Spawn.ChildExited", "exited"), ErrAbsent, "install or start"},
		{reply("org.freedesktop.DBus.Error.TimedOut", "activation"), ErrAbsent, "install or start"},
		{reply("org.freedesktop.systemd1.UnitMasked", "masked"), ErrAbsent, "masked"},
		{reply("org.freedesktop.DBus.Error.NoReply", "it disconnected"), ErrGone, "try again"},
		{reply("org.freedesktop.PolicyKit1.Error.Failed", "Action x is not registered"), ErrUnknownAction, "policy file"},
		{fmt.Errorf("calling: %w", context.DeadlineExceeded), ErrSilent, "polkitd"},
		{context.Canceled, context.Canceled, ""},
	} {
		got := explain(c.err)
		if !errors.Is(got, c.want) || !strings.Contains(got.Error(), c.remedy) {
			t.Errorf("%v: %v, want %v with %q", c.err, got, c.want, c.remedy)
		}
	}
	if got := explain(reply("org.freedesktop.PolicyKit1.Error.NotAuthorized", "no details")); !strings.Contains(got.Error(), "no details") {
		t.Errorf("another error: %v", got)
	}
}
