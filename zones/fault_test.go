package zones_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

func TestSlowFirewalldIsGivenUp(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	c.SetTimeouts(50*time.Millisecond, 50*time.Millisecond)
	release := make(chan struct{})
	defer close(release)
	f.export(root, name+".zone", methods{"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) {
		<-release
		return zone, nil
	}})
	_, err := c.Bind(t.Context(), "virbr0", "libvirt")
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, zones.ErrNotRunning) || !strings.Contains(err.Error(), "did not answer within 50ms") {
		t.Errorf("Bind: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Bind(ctx, "virbr0", "libvirt"); !errors.Is(err, context.Canceled) {
		t.Errorf("Bind for a caller who left: %v", err)
	}
}

func TestFirewalldDyingInACallIsNotRunning(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	f.export(root, name+".zone", methods{"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) {
		f.conn.Close()
		return "", nil
	}})
	if _, err := c.Bind(t.Context(), "virbr0", "libvirt"); !errors.Is(err, zones.ErrNotRunning) {
		t.Errorf("Bind: %v", err)
	}
}

func TestAnswersThatMeanSuccess(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	var answer atomic.Pointer[dbus.Error]
	f.export(root, name+".zone", methods{
		"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) { return "", answer.Load() },
		"removeInterface":       func(zone, iface string) (string, *dbus.Error) { return "", answer.Load() },
	})
	for _, tt := range []struct {
		answer       string
		bind, unbind bool // whether it is a success
	}{
		{"ZONE_ALREADY_SET: libvirt", true, false},
		{"ZONE_ALREADY_SET", true, false},
		{"UNKNOWN_INTERFACE: 'virbr0' is not in any zone", false, true},
		{"ZONE_CONFLICT: remove_interface(libvirt, virbr0): zoi='public'", false, true},
		{"NOT_ENABLED: virbr0", false, true},
		{"INVALID_ZONE: libvirt", false, true},
		{"PANIC_MODE: panic mode is on", false, false},
		{"COMMAND_FAILED: ZONE_ALREADY_SET: in the middle", false, false},
		{"'NoneType' object is not iterable", false, false},
		{"", false, false},
	} {
		answer.Store(exception(tt.answer))
		_, err := c.Bind(t.Context(), "virbr0", "libvirt")
		if (err == nil) != tt.bind {
			t.Errorf("Bind, answered %q: %v", tt.answer, err)
		}
		if err := c.Unbind(t.Context(), "libvirt", "virbr0"); (err == nil) != tt.unbind {
			t.Errorf("Unbind, answered %q: %v", tt.answer, err)
		}
	}
}

func TestWrongTypesAreErrors(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	f.export(root, name+".zone", methods{
		"getZones":       func() (int32, *dbus.Error) { return 7, nil },
		"getActiveZones": func() ([]string, *dbus.Error) { return []string{"public"}, nil },
	})
	if zones, err := c.Zones(t.Context()); err == nil {
		t.Errorf("Zones = %q", zones)
	}
	if bound, err := c.Interfaces(t.Context()); err == nil {
		t.Errorf("Interfaces = %q", bound)
	}
}

// oldFirewalld is 0.8: no policies, and zones as tuples.
type oldFirewalld struct {
	mu      sync.Mutex
	runtime map[string]tuple
	stored  map[string]tuple
	reloads int
	refuse  *dbus.Error // what addZone answers for libvirt-routed
}

type tuple struct {
	Version, Short, Description string
	Unused                      bool
	Target                      string
	Services                    []string
	Ports                       []struct{ Port, Protocol string }
	ICMPBlocks                  []string
	Masquerade                  bool
	ForwardPorts                []struct{ Port, Protocol, ToPort, ToAddr string }
	Interfaces, Sources         []string
	RichRules, Protocols        []string
	SourcePorts                 []struct{ Port, Protocol string }
	Inversion                   bool
}

func zonePath(zone string) dbus.ObjectPath {
	return config + "/zone/" + dbus.ObjectPath(strings.ReplaceAll(zone, "-", "_"))
}

func (o *oldFirewalld) serve(f *fake) {
	public := tuple{Target: "default", Services: []string{"ssh"}}
	o.runtime, o.stored = map[string]tuple{"public": public}, map[string]tuple{"public": public}
	for _, z := range []string{"public", "work", "libvirt", "libvirt-routed"} {
		o.serveZone(f, z)
	}
	f.export(root, name, methods{
		"getDefaultZone": func() (string, *dbus.Error) { return "public", nil },
		"getZoneSettings": func(zone string) (tuple, *dbus.Error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.runtime[zone], nil
		},
		"reload": func() *dbus.Error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.reloads++
			o.runtime = maps.Clone(o.stored)
			return nil
		},
	})
	f.export(root, name+".zone", methods{
		"getZones":       func() ([]string, *dbus.Error) { return o.names(), nil },
		"getActiveZones": func() (map[string]map[string][]string, *dbus.Error) { return nil, nil },
	})
	f.export(config, properties, methods{
		"Get": func(iface, property string) (dbus.Variant, *dbus.Error) {
			return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Python.dbus.exceptions.DBusException",
				[]any{"org.freedesktop.DBus.Error.InvalidArgs: Property '" + property + "' does not exist"})
		},
		"GetAll": func(iface string) (map[string]dbus.Variant, *dbus.Error) {
			return map[string]dbus.Variant{"DefaultZone": dbus.MakeVariant("public")}, nil
		},
	})
	f.export(config, name+".config", methods{
		"listZones": func() ([]dbus.ObjectPath, *dbus.Error) { return o.paths(), nil },
		"addZone": func(zone string, settings tuple) (dbus.ObjectPath, *dbus.Error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.refuse != nil && zone == "libvirt" {
				return "", o.refuse
			}
			o.stored[zone] = settings
			return zonePath(zone), nil
		},
	})
}

func (o *oldFirewalld) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for z := range o.runtime {
		out = append(out, z)
	}
	return out
}

func (o *oldFirewalld) state() (stored, runtime map[string]tuple, reloads int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.stored), maps.Clone(o.runtime), o.reloads
}

// addWork makes a zone with a binding that is not permanent.
func (o *oldFirewalld) addWork() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stored["work"] = tuple{Target: "default"}
	o.runtime["work"] = tuple{Target: "default", Interfaces: []string{"eth0"}}
}

func (o *oldFirewalld) paths() []dbus.ObjectPath {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []dbus.ObjectPath
	for z := range o.stored {
		out = append(out, zonePath(z))
	}
	return out
}

// serveZone exports the object of a permanent zone, whether there is one yet
// or not: godbus must not export while it answers.
func (o *oldFirewalld) serveZone(f *fake, z string) {
	f.export(zonePath(z), properties, methods{"GetAll": func(string) (map[string]dbus.Variant, *dbus.Error) {
		return map[string]dbus.Variant{"name": dbus.MakeVariant(z), "builtin": dbus.MakeVariant(false),
			"default": dbus.MakeVariant(true)}, nil
	}})
	f.export(zonePath(z), name+".config.zone", methods{
		"getSettings": func() (tuple, *dbus.Error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.stored[z], nil
		},
		"remove": func() *dbus.Error {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.stored, z)
			return nil
		},
	})
}

func TestFirewalldBeforePolicies(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	old := new(oldFirewalld)
	old.serve(f)
	if backend, err := c.Backend(t.Context()); backend != "iptables" || err != nil {
		t.Errorf("Backend = %q, %v", backend, err)
	}
	installed, err := c.Install(t.Context(), false, nil)
	if diff := cmp.Diff([]string{"libvirt-routed", "libvirt"}, installed); diff != "" || err != nil {
		t.Fatalf("Install: %v, %s", err, diff)
	}
	stored, _, _ := old.state()
	got := stored["libvirt"]
	if got.Target != "ACCEPT" || !slices.Contains(got.Services, "dns") || !slices.Equal(got.RichRules, []string{`rule priority="32767" reject`}) {
		t.Errorf("installed %+v", got)
	}
	have, err := c.Installed(t.Context())
	if zone, err2 := zones.Choose("", "route", have); zone != "libvirt" || err != nil || err2 != nil {
		t.Errorf("a routed network goes to %q, %v, %v", zone, err, err2)
	}
	again, err := c.Install(t.Context(), false, nil)
	if _, _, reloads := old.state(); err != nil || len(again) != 0 || reloads != 1 {
		t.Errorf("Install again = %q, %v, %d reloads", again, err, reloads)
	}
	removed, err := c.Remove(t.Context(), zones.Removal{}, nil)
	if diff := cmp.Diff([]string{"libvirt", "libvirt-routed"}, removed); diff != "" || err != nil {
		t.Errorf("Remove: %v, %s", err, diff)
	}
	if stored, runtime, reloads := old.state(); len(stored) != 1 || len(runtime) != 1 || reloads != 2 {
		t.Errorf("left: %d permanent, %d in force, %d reloads", len(stored), len(runtime), reloads)
	}
}

func TestInstallTakesBackHalf(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	old := &oldFirewalld{refuse: exception("INVALID_RULE: priority")}
	old.serve(f)
	_, err := c.Install(t.Context(), false, nil)
	if err == nil || !strings.Contains(err.Error(), "INVALID_RULE") {
		t.Errorf("Install: %v", err)
	}
	if stored, _, reloads := old.state(); len(stored) != 1 || reloads != 0 {
		t.Errorf("left: %d permanent zones, %d reloads", len(stored), reloads)
	}
}

// NetworkManager is not there; this is the part of it that firewalld asks.
func TestBindingsOfNetworkManagerDoNotCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, zone string
		flags      uint32
		vpn        bool
		kept       bool
	}{
		{"its zone", "work", 0, false, true},
		{"another zone", "home", 0, false, false},
		{"no zone means the default one", "", 0, false, false},
		{"a profile that it made up", "work", 2, false, false},
		{"a VPN", "work", 0, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, c := newFake(t)
			old := new(oldFirewalld)
			old.serve(f)
			old.addWork()
			serveNetworkManager(f, tt.zone, tt.flags, tt.vpn)
			_, err := c.Install(t.Context(), false, nil)
			if kept := err == nil; kept != tt.kept || (!kept && !errors.As(err, new(zones.ErrRuntimeChanges))) {
				t.Errorf("Install: %v", err)
			}
		})
	}
}

func serveNetworkManager(f *fake, zone string, flags uint32, vpn bool) {
	const nm = "org.freedesktop.NetworkManager"
	const path = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	if _, err := f.conn.RequestName(nm, dbus.NameFlagDoNotQueue); err != nil {
		f.t.Fatal(err)
	}
	f.export(path, nm, methods{"GetDeviceByIpIface": func(iface string) (dbus.ObjectPath, *dbus.Error) {
		if iface != "eth0" {
			return "", dbus.NewError(nm+".UnknownDevice", nil)
		}
		return path + "/Devices/2", nil
	}})
	for p, values := range map[dbus.ObjectPath]map[string]any{
		path + "/Devices/2":          {"ActiveConnection": path + "/ActiveConnection/1"},
		path + "/ActiveConnection/1": {"Connection": path + "/Settings/1", "Vpn": vpn},
		path + "/Settings/1":         {"Flags": flags},
	} {
		f.export(p, properties, methods{"Get": func(iface, property string) (dbus.Variant, *dbus.Error) {
			return dbus.MakeVariant(values[property]), nil
		}})
	}
	f.export(path+"/Settings/1", nm+".Settings.Connection", methods{"GetSettings": func() (map[string]map[string]dbus.Variant, *dbus.Error) {
		return map[string]map[string]dbus.Variant{"connection": {"zone": dbus.MakeVariant(zone)}}, nil
	}})
}

func TestWatchKeepsUpWithABurst(t *testing.T) {
	f, c := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody receives meanwhile. godbus may deliver a burst in another order, so
	// the last one of each interface comes after a pause.
	for i := range 5000 {
		f.emit("zone.ZoneOfInterfaceChanged", "public", fmt.Sprintf("virbr%d", i%50))
	}
	awaitDrained(t, f, c)
	f.emit("zone.InterfaceRemoved", "public", "virbr3")
	awaitDrained(t, f, c)
	zone := make(map[string]string)
	for n := 0; n < 50; n++ {
		e := next(t, events)
		if _, twice := zone[e.Interface]; twice || e.Kind != zones.BindingChanged {
			t.Errorf("event %v", e)
		}
		zone[e.Interface] = e.Zone
	}
	if zone["virbr3"] != "" || zone["virbr4"] != "public" {
		t.Errorf("zones: %v", zone)
	}
	cancel()
	if _, ok := <-events; ok {
		t.Error("one event too many")
	}
}

// awaitDrained waits until the watch has received what was emitted: it receives
// signals at once, and a call's answer follows them on the connection.
func awaitDrained(t *testing.T, f *fake, c *zones.Client) {
	t.Helper()
	f.export(root, name+".zone", methods{"getZoneOfInterface": func(string) (string, *dbus.Error) { return "", nil }})
	for range 20 {
		if _, err := c.ZoneOf(t.Context(), "lo"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWatchBelievesOnlyFirewalld(t *testing.T) {
	f, c := newFake(t)
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := dbus.Connect(f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	victim := ownerOfWatch(t, f, c)
	for _, m := range []string{name + ".Reloaded", "org.freedesktop.DBus.NameOwnerChanged"} {
		iface, member := m[:strings.LastIndex(m, ".")], m[strings.LastIndex(m, ".")+1:]
		msg := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant(victim), dbus.FieldPath: dbus.MakeVariant(root),
			dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("", "", "")),
		}, Body: []any{name, ":1.1", ""}}
		if call := stranger.Send(msg, nil); call != nil && call.Err != nil {
			t.Fatal(call.Err)
		}
	}
	f.conn.Close()
	if e := next(t, events); e.Kind != zones.Vanished {
		t.Errorf("event %v, want only the real one", e)
	}
	if c.Running(t.Context()) {
		t.Error("it is said to run")
	}
}

// ownerOfWatch finds the client's unique name by a call that it makes.
func ownerOfWatch(t *testing.T, f *fake, c *zones.Client) string {
	t.Helper()
	senders := make(chan string, 1)
	f.export(root, name+".zone", methods{"getZoneOfInterface": func(from dbus.Sender, iface string) (string, *dbus.Error) {
		senders <- string(from)
		return "", nil
	}})
	if _, err := c.ZoneOf(t.Context(), "lo"); err != nil {
		t.Fatal(err)
	}
	return <-senders
}

func TestWatchSaysThatFirewalldCameAgain(t *testing.T) {
	f, c := newFake(t)
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.emit("Reloaded")
	for range 3 {
		f.conn.Close()
		f.appear()
	}
	var got []zones.EventKind
	for len(got) == 0 || got[len(got)-1] != zones.Appeared {
		got = append(got, next(t, events).Kind)
	}
	got = got[max(0, len(got)-2):]
	if diff := cmp.Diff([]zones.EventKind{zones.Vanished, zones.Appeared}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswersAreRememberedOnlyUntilAReload(t *testing.T) {
	f, c := newFake(t)
	var mu sync.Mutex
	asked, list := 0, []string{"public"}
	f.export(root, name+".zone", methods{"getZones": func() ([]string, *dbus.Error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return list, nil
	}})
	want := func(times int, zones ...string) {
		t.Helper()
		for range 3 {
			got, err := c.Zones(t.Context())
			if err != nil || !slices.Equal(got, zones) {
				t.Errorf("Zones = %q, %v; want %q", got, err, zones)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if asked != times {
			t.Errorf("firewalld was asked %d times, want %d", asked, times)
		}
	}
	want(3, "public")
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want(4, "public")
	mu.Lock()
	list = []string{"libvirt"}
	mu.Unlock()
	f.emit("Reloaded")
	if e := next(t, events); e.Kind != zones.Reloaded {
		t.Errorf("event %v", e)
	}
	want(5, "libvirt")
}

func TestNothingIsLeftRunning(t *testing.T) {
	address := privatebus.Start(t).Address
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	c := zones.New(conn, slog.New(slog.DiscardHandler))
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		events, err := c.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Installed(ctx)
		cancel()
		for range events {
			t.Error("an event")
		}
	}
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // ends the watch as well
	for range events {
		t.Error("an event")
	}
	if _, err := c.Watch(t.Context()); err == nil {
		t.Error("watching on a closed connection worked")
	}
}
