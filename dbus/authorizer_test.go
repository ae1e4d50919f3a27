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

	"github.com/virtfirewalld/virtfirewalld/polkit"
	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// asNobody is a command as user 65534 on the test's bus.
func (r *rig) asNobody(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
	cmd := exec.CommandContext(t.Context(), "setpriv", args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DBUS_SYSTEM_BUS_ADDRESS=" + r.bus.Address}
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
			if !m.changes() {
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
	// busctl has its own text for the error; other clients show the service's.
	out, err := r.nobody(t, "gdbus", "call", "--system", "--dest", BusName, "--object-path", ManagerPath, "--method", managerInterface+".Reload")
	if err == nil || !strings.Contains(out, "user 65534 do") {
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

// readersOnly is an authority that lets everybody read.
type readersOnly struct{}

func (readersOnly) Check(_ context.Context, r polkit.Request) (polkit.Answer, error) {
	if r.Action == ActionRead {
		return polkit.Allowed, nil
	}
	return polkit.Denied, nil
}

// fakeAuthorizer records its requests and returns what say sets.
type fakeAuthorizer struct {
	mu     sync.Mutex
	asked  []string
	answer error
}

func (a *fakeAuthorizer) User(context.Context, string) (uint32, error) { return 1000, nil }

func (a *fakeAuthorizer) Check(_ context.Context, sender string, interactive bool, requests []authzRequest) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := fmt.Sprintf("%v %v", sender != "", interactive)
	for _, q := range requests {
		text += " " + strings.TrimPrefix(q.action, actionPrefix) + "("
		var d []string
		for _, k := range slices.Sorted(maps.Keys(q.details)) {
			d = append(d, k+"="+q.details[k])
		}
		text += strings.Join(d, " ") + ")"
	}
	a.asked = append(a.asked, text)
	return a.answer
}

func (a *fakeAuthorizer) say(answer error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *fakeAuthorizer) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[len(a.asked)-1]
}

// detailTexts are the expected details of a network before or after a change.
type detailTexts struct{ bridge, mode, zone, subnets, devices, natAddresses, natPorts string }

// manage returns how a fakeAuthorizer records one request: a network as it would
// be, and where there is one, as it was.
func manage(what, name string, is detailTexts, was ...detailTexts) string {
	d := []string{"network=" + name}
	add := func(prefix string, x detailTexts) {
		d = append(d, prefix+"bridge="+x.bridge, prefix+"forward_mode="+x.mode, prefix+"zone="+x.zone, prefix+"subnets="+x.subnets,
			prefix+"devices="+x.devices, prefix+"nat_addresses="+x.natAddresses, prefix+"nat_ports="+x.natPorts)
	}
	add("", is)
	for _, x := range was {
		add("old_", x)
	}
	slices.Sort(d)
	return "manage-" + what + "(" + strings.Join(d, " ") + ")"
}

func TestWhatTheAuthorizerIsAsked(t *testing.T) {
	a := &fakeAuthorizer{}
	r := newRigWith(t, a)
	path := r.add(t, "lab")
	a.say(ErrAccessDenied)
	lab := detailTexts{bridge: bridgeOf("lab"), mode: "nat", subnets: "192.168.150.0/24"}
	def := detailTexts{bridge: "virbr0", mode: "nat", subnets: "192.168.122.0/24"}
	trusted := detailTexts{bridge: "virbr1", mode: "nat", zone: "trusted", subnets: def.subnets}
	bound, routed, moved := lab, lab, lab
	bound.zone, routed.mode, moved.subnets = "trusted", "route", "10.1.0.0/16 10.9.0.0/24 fd00:9::/64"
	narrowed := lab
	narrowed.devices, narrowed.natAddresses, narrowed.natPorts = "eth0 eth1", "10.0.0.5-10.0.0.9", "2000-3000"
	labXML := strings.Replace(strings.Replace(defaultXML, "<name>default<", "<name>lab<", 1), "'virbr0'", "'virbr1' zone='trusted'", 1)
	replace := options("Replace", true)
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"AddNetworkFromXML", []any{defaultXML, noOptions()}, manage("networks", "default", def)},
		{"AddNetworkFromXML", []any{labXML, noOptions()}, manage("networks", "lab", trusted) + " " + manage("zones", "lab", trusted)},
		{"AddNetworkFromXML", []any{labXML, replace}, manage("networks", "lab", trusted, lab) + " " + manage("zones", "lab", trusted, lab) +
			" " + manage("networks", "lab", lab, lab)},
		{"AddNetwork", []any{"lab", plainSettings("lab"), replace}, manage("networks", "lab", lab, lab)},
		{"RemoveNetwork", []any{"lab", noOptions()}, manage("networks", "lab", lab)},
		{"RemoveNetwork", []any{"none\nat all", noOptions()}, manage("networks", "none\uFFFDat all", detailTexts{})},
		{"BindInterface", []any{bridgeOf("lab"), "trusted"}, manage("zones", "lab", bound, lab) + " " + manage("zones", "lab", lab, lab)},
		{"UnbindInterface", []any{bridgeOf("lab")}, manage("zones", "lab", lab, lab)},
		{"UnbindInterface", []any{"br9"}, manage("zones", "", detailTexts{bridge: "br9"})},
		{"SetBackend", []any{"auto", noOptions()}, "choose-backend(backend=auto)"},
		{"Reload", nil, "reload()"},
		{"Diagnose", nil, "diagnose()"},
		{"ListNetworks", nil, "read()"},
	} {
		wantError(t, r.call(c.method, c.args...).Err, errAccessDenied, "denied")
		if got := a.last(); got != "true false "+c.want {
			t.Errorf("%s: asked for\n%q, want\n%q", c.method, got, c.want)
		}
	}
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"AddPortForward", []any{noOptions(), noOptions()}, manage("port-forwards", "lab", lab)},
		{"Update", []any{options("TFTP", true), noOptions()}, manage("networks", "lab", lab, lab)},
		{"Update", []any{options("ForwardMode", "route"), noOptions()}, manage("networks", "lab", routed, lab) + " " + manage("networks", "lab", lab, lab)},
		{"Update", []any{options("Addresses", []string{"10.9.0.1/24", "fd00:9::1/64"}, "Routes", []string{"10.1.0.0/16"}), noOptions()},
			manage("networks", "lab", moved, lab) + " " + manage("networks", "lab", lab, lab)},
		{"Update", []any{options("ForwardDevices", []string{"eth1", "eth0"}, "NATAddressRange", "10.0.0.5-10.0.0.9", "NATPortRange", "2000-3000"), noOptions()},
			manage("networks", "lab", narrowed, lab) + " " + manage("networks", "lab", lab, lab)},
		{"Update", []any{options("Bridge", "a/b"), noOptions()}, manage("networks", "lab", lab)},
		{"GetRuleset", nil, "read()"},
	} {
		wantError(t, r.callAt(path, networkInterface+"."+c.method, c.args...).Err, errAccessDenied, "denied")
		if got := a.last(); got != "true false "+c.want {
			t.Errorf("%s: asked for\n%q, want\n%q", c.method, got, c.want)
		}
	}
	if asked := r.api.asked(); len(asked) != 1 {
		t.Errorf("the service was asked for %v", asked[1:])
	}
}

// A caller that takes a bridge out of a zone of the host's own needs the right
// to manage zones, also where the zone was chosen by a call.
func TestLeavingAZoneIsAskedFor(t *testing.T) {
	n := namedNetwork(t, "lab")
	zoned := n
	zoned.Zone = "dmz"
	for _, c := range []struct {
		before service.Status
		after  *network.Network
		want   string
	}{
		{service.Status{Network: n, BoundZone: "libvirt"}, nil, "manage-networks:"},
		{service.Status{Network: n, BoundZone: "drop"}, nil, "manage-networks: manage-zones:drop"},
		{service.Status{Network: zoned, BoundZone: "dmz"}, nil, "manage-networks:dmz manage-zones:dmz"},
		{service.Status{Network: zoned, BoundZone: "dmz"}, &n, "manage-networks: manage-networks:dmz manage-zones:dmz"},
		{service.Status{Network: n, BoundZone: "libvirt"}, &zoned, "manage-networks:dmz manage-zones:dmz manage-networks:"},
		{service.Status{Network: zoned, BoundZone: ""}, &zoned, "manage-networks:dmz manage-zones:dmz"},
	} {
		var got []string
		for _, a := range networkRequests("lab", &c.before, c.after) {
			got = append(got, strings.TrimPrefix(a.action, actionPrefix)+":"+a.details["zone"])
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v to %+v: %q, want %q", c.before, c.after, got, c.want)
		}
	}
}

// An approval holds for the subnets, devices and ranges it was asked with only.
func TestApprovalIsOfWhatWasThere(t *testing.T) {
	n := namedNetwork(t, "lab")
	after, err := n.With(map[string]any{"TFTP": true})
	must(t, err)
	approved := change{before: &service.Status{Network: n}, requests: func(before *service.Status) []authzRequest { return networkRequests("lab", before, &after) }}
	allows := approved.expect(&call{user: 1000})
	must(t, allows(&service.Status{Network: n}))
	for key, value := range map[string]any{
		"Addresses": []string{"10.99.0.1/24"}, "Routes": []string{"10.98.0.0/24"}, "ForwardDevices": []string{"eth7"},
		"NATAddressRange": "10.0.0.5-10.0.0.9", "NATPortRange": "2000-3000", "Bridge": "br7",
	} {
		other, err := n.With(map[string]any{key: value})
		must(t, err)
		if err := allows(&service.Status{Network: other}); err == nil || !strings.Contains(err.Error(), "changed by another") {
			t.Errorf("%s was changed meanwhile: %v", key, err)
		}
	}
	must(t, allows(&service.Status{Network: after})) // TFTP is in no detail
}

func TestAuthorizerAnswers(t *testing.T) {
	a := &fakeAuthorizer{}
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
	// The flag that allows interaction is passed on.
	out, err := exec.Command("busctl", "--address="+r.bus.Address, "--allow-interactive-authorization=yes",
		"call", BusName, ManagerPath, managerInterface, "Reload").CombinedOutput()
	if err != nil {
		t.Fatalf("busctl: %s (%v)", out, err)
	}
	if got := a.last(); got != "true true reload()" {
		t.Errorf("asked for %q", got)
	}
}

func TestGateLimitsItsCache(t *testing.T) {
	r := newRig(t)
	g := r.server.auth.(*Gate)
	for i := range maxCached {
		_, err := g.users.get(t.Context(), fmt.Sprint("gone", i), func() (uint32, error) { return 1, nil })
		must(t, err)
	}
	must(t, r.call("Reload").Err)
	if len(g.users.entries) > maxCached {
		t.Errorf("%d callers are cached", len(g.users.entries))
	}
	if err := g.Check(t.Context(), ":1.9999", false, []authzRequest{{action: "x"}}); !errors.Is(err, ErrAccessDenied) {
		t.Errorf("a caller that is gone: %v", err)
	}
}
