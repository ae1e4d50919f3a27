package dbus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// asNobody is a command as user 65534 on the test's bus.
func (r *rig) asNobody(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
	cmd := exec.CommandContext(t.Context(), "setpriv", args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DBUS_SYSTEM_BUS_ADDRESS=" + r.bus.address}
	return cmd
}

func (r *rig) nobody(t *testing.T, command ...string) (string, error) {
	t.Helper()
	out, err := r.asNobody(t, command...).CombinedOutput()
	return string(out), err
}

// Every method that changes something is refused to other users, before
// anything is done; the list of methods is that of the introspection data.
func TestOthersMayChangeNothing(t *testing.T) {
	r := newRig(t)
	path := r.add(t, "lab")
	before := r.api.asked()
	arguments := map[string][]string{
		"AddNetwork":        {"sa{sv}a{sv}", "n", "1", "Bridge", "s", "br0", "0"},
		"AddNetworkFromXML": {"sa{sv}", defaultXML, "0"},
		"RemoveNetwork":     {"sa{sv}", "lab", "0"},
		"SetBackend":        {"sa{sv}", "auto", "0"},
		"Reload":            {}, "Reapply": {}, "Diagnose": {},
		"InstallZones":      {"a{sv}", "0"},
		"RemoveZones":       {"a{sv}", "0"},
		"BindInterface":     {"ss", "br0", ""},
		"UnbindInterface":   {"s", "br0"},
		"Update":            {"a{sv}a{sv}", "0", "0"},
		"AddPortForward":    {"a{sv}a{sv}", "0", "0"},
		"RemovePortForward": {"ua{sv}", "1", "0"},
	}
	for iface, object := range map[string]godbus.ObjectPath{managerInterface: ManagerPath, networkInterface: path} {
		for name, m := range r.server.methods[iface] {
			if m.action == "" {
				continue
			}
			args, ok := arguments[name]
			if !ok {
				t.Fatalf("%s.%s changes something, and this test does not call it", iface, name)
			}
			call := append([]string{"busctl", "call", BusName, string(object), iface, name}, args...)
			out, err := r.nobody(t, call...)
			if err == nil || !strings.Contains(out, "Access denied") {
				t.Errorf("%s answered another user: %s (%v)", name, out, err)
			}
		}
	}
	// busctl has its own words for the error; others show ours.
	out, err := r.nobody(t, "gdbus", "call", "--system", "--dest", BusName, "--object-path", ManagerPath, "--method", managerInterface+".Reload")
	if err == nil || !strings.Contains(out, "user 65534; use sudo") {
		t.Errorf("gdbus shows: %s (%v)", out, err)
	}
	if after := r.api.asked(); !slices.Equal(before, after) {
		t.Errorf("the service was asked for %q", after[len(before):])
	}
}

func TestOthersMayRead(t *testing.T) {
	r := newRig(t)
	path := string(r.add(t, "lab"))
	for _, c := range [][]string{
		{"call", BusName, ManagerPath, managerInterface, "ListNetworks"},
		{"call", BusName, ManagerPath, managerInterface, "Preview", "ss", defaultXML, ""},
		{"call", BusName, path, networkInterface, "GetRuleset"},
		{"call", BusName, path, networkInterface, "GetCounters"},
		{"get-property", BusName, path, networkInterface, "State"},
		{"introspect", BusName, path},
		{"call", BusName, ManagerPath, objectManagerInterface, "GetManagedObjects"},
	} {
		if out, err := r.nobody(t, append([]string{"busctl"}, c...)...); err != nil {
			t.Errorf("busctl %v: %s (%v)", c, out, err)
		}
	}
}

func TestOthersMayNotOwnTheName(t *testing.T) {
	r := newRig(t)
	r.server.Close()
	out, err := r.nobody(t, "gdbus", "call", "--system", "--dest", "org.freedesktop.DBus", "--object-path", "/org/freedesktop/DBus",
		"--method", "org.freedesktop.DBus.RequestName", BusName, "0")
	if err == nil || !strings.Contains(out, "AccessDenied") {
		t.Errorf("another user got the name: %s (%v)", out, err)
	}
}

// asker notes what it is asked and answers as told.
type asker struct {
	mu     sync.Mutex
	asked  []string
	answer error
}

func (a *asker) Check(_ context.Context, sender string, interactive bool, action string, details map[string]string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var d []string
	for _, k := range slices.Sorted(maps.Keys(details)) {
		d = append(d, k+"="+details[k])
	}
	a.asked = append(a.asked, fmt.Sprintf("%v %v %s %s", sender != "", interactive, strings.TrimPrefix(action, actionPrefix), strings.Join(d, " ")))
	return a.answer
}

func (a *asker) say(answer error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *asker) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[len(a.asked)-1]
}

func TestWhatTheAuthorizerIsAsked(t *testing.T) {
	a := &asker{}
	r := newRigWith(t, a)
	path := r.add(t, "lab")
	a.say(ErrAccessDenied)
	lab := "bridge=" + bridgeOf("lab") + " forward_mode=nat network=lab zone="
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"AddNetworkFromXML", []any{defaultXML, noOptions()}, "manage-networks bridge=virbr0 forward_mode=nat network=default zone="},
		{"RemoveNetwork", []any{"lab", noOptions()}, "manage-networks " + lab},
		{"RemoveNetwork", []any{"none", noOptions()}, "manage-networks network=none"},
		{"BindInterface", []any{bridgeOf("lab"), "trusted"}, "manage-zones " + lab + "trusted"},
		{"UnbindInterface", []any{"br9"}, "manage-zones bridge=br9"},
		{"SetBackend", []any{"auto", noOptions()}, "choose-backend backend=auto"},
		{"Reload", nil, "reload "},
		{"Diagnose", nil, "diagnose "},
	} {
		wantError(t, r.call(c.method, c.args...).Err, errAccessDenied, "denied")
		if got := a.last(); got != "true false "+c.want {
			t.Errorf("%s: asked for %q, want %q", c.method, got, c.want)
		}
	}
	wantError(t, r.callAt(path, networkInterface+".AddPortForward", noOptions(), noOptions()).Err, errAccessDenied, "")
	if got := a.last(); got != "true false manage-port-forwards "+lab {
		t.Errorf("AddPortForward: asked for %q", got)
	}
	if asked := r.api.asked(); len(asked) != 1 {
		t.Errorf("the service was asked for %v", asked[1:])
	}
}

func TestAuthorizerAnswers(t *testing.T) {
	a := &asker{}
	r := newRigWith(t, a)
	for _, c := range []struct {
		answer error
		name   string
	}{
		{fmt.Errorf("%w: ask somebody", ErrInteractionRequired), errInteractive},
		{ErrAccessDenied, errAccessDenied},
		{errors.New("the authority did not answer"), errAccessDenied},
		{context.DeadlineExceeded, errAccessDenied},
		{network.ErrInvalid, errAccessDenied},
		{nil, ""},
	} {
		a.say(c.answer)
		wantError(t, r.call("Reload").Err, c.name, "")
	}
	// The flag that a caller will wait for a person is passed on.
	out, err := exec.Command("busctl", "--address="+r.bus.address, "--allow-interactive-authorization=yes",
		"call", BusName, ManagerPath, managerInterface, "Reload").CombinedOutput()
	if err != nil {
		t.Fatalf("busctl: %s (%v)", out, err)
	}
	if got := a.last(); got != "true true reload " {
		t.Errorf("asked for %q", got)
	}
}

func TestRootOnlyKnowsFewCallers(t *testing.T) {
	r := newRig(t)
	a := r.server.auth.(*RootOnly)
	for i := range maxKnownCallers {
		a.mu.Lock()
		a.uids[fmt.Sprint("gone", i)] = 1
		a.mu.Unlock()
	}
	must(t, r.call("Reload").Err)
	if len(a.uids) > maxKnownCallers {
		t.Errorf("%d callers are remembered", len(a.uids))
	}
	if err := a.Check(t.Context(), ":1.9999", false, "x", nil); !errors.Is(err, ErrAccessDenied) {
		t.Errorf("a caller that is gone: %v", err)
	}
}
