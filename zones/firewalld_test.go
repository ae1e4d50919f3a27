package zones_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

var allOurs = []string{"libvirt-routed", "libvirt", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"}

// firewalld is a host with a bus and, once up is called, the real firewalld.
type firewalld struct {
	*host.Host
	*zones.Client
	t testing.TB
}

func newHost(t testing.TB) *firewalld {
	t.Helper()
	h := host.New(t)
	// The machine may have libvirt's package, which brings zones of these names.
	h.Must("sh", "-c", "rm -f /usr/lib/firewalld/zones/libvirt*.xml /usr/lib/firewalld/policies/libvirt*.xml")
	h.Bus()
	client := newClient(t, h.BusAddress())
	client.SetRoot(h.Path("/"))
	return &firewalld{Host: h, Client: client, t: t}
}

func newFirewalld(t testing.TB) *firewalld {
	t.Helper()
	f := newHost(t)
	f.Firewalld("nftables")
	return f
}

func newClient(t testing.TB, address string) *zones.Client {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return zones.New(conn, slog.New(slog.DiscardHandler))
}

// cmd runs firewall-cmd and returns what it prints.
func (f *firewalld) cmd(args ...string) string {
	f.t.Helper()
	return strings.TrimSpace(f.Must(append([]string{"firewall-cmd"}, args...)...))
}

func (f *firewalld) install() {
	f.t.Helper()
	if _, err := f.Install(f.t.Context(), false, nil); err != nil {
		f.t.Fatal(err)
	}
}

// wantZone checks where firewall-cmd sees an interface.
func (f *firewalld) wantZone(iface, want string) {
	f.t.Helper()
	out, _ := f.Run("firewall-cmd", "--get-zone-of-interface="+iface)
	if got := strings.TrimSpace(out); got != want && (want != "" || !strings.Contains(got, "no zone")) {
		f.t.Errorf("%s is in zone %q, want %q", iface, got, want)
	}
	got, err := f.ZoneOf(f.t.Context(), iface)
	if got != want || err != nil {
		f.t.Errorf("ZoneOf(%s) = %q, %v; want %q", iface, got, err, want)
	}
}

// state is all that a failed call must not have changed.
func (f *firewalld) state() string {
	f.t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"--list-all-zones"}, {"--list-all-policies"}, {"--permanent", "--list-all-zones"}, {"--permanent", "--list-all-policies"}} {
		b.WriteString(f.cmd(args...) + "\n")
	}
	b.WriteString(f.Must("sh", "-c", "cd /etc/firewalld && grep -r . zones policies | grep -v '\\.old:' | sort"))
	return b.String()
}

func TestInstallMakesWhatLibvirtShips(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	have, err := f.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zones.Choose("", "nat", have); !errors.Is(err, zones.ErrZoneMissing{Zone: "libvirt"}) {
		t.Errorf("choosing on a bare firewalld: %v", err)
	}

	installed, err := f.Install(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(allOurs, installed); diff != "" {
		t.Error(diff)
	}
	before := f.state()
	if again, err := f.Install(t.Context(), false, nil); err != nil || len(again) != 0 {
		t.Errorf("installing again: %q, %v", again, err)
	}
	if diff := cmp.Diff(before, f.state()); diff != "" {
		t.Errorf("installing again changed: %s", diff)
	}
	checkFacts(t, f)
}

// checkFacts compares with libvirt's files, as firewall-cmd shows them.
func checkFacts(t *testing.T, f *firewalld) {
	t.Helper()
	services, protocols := "services: dhcp dhcpv6 dns ssh tftp", "protocols: icmp ipv6-icmp"
	for _, tt := range []struct {
		arg  string
		want []string
	}{
		{"--info-zone=libvirt", []string{"target: ACCEPT", services, protocols, `rule priority="32767" reject`, "forward: no"}},
		{"--info-zone=libvirt-routed", []string{"target: default", "forward: no"}},
		{"--info-policy=libvirt-to-host", []string{"target: REJECT", services, protocols, "priority: -1",
			"ingress-zones: libvirt-routed", "egress-zones: HOST"}},
		{"--info-policy=libvirt-routed-out", []string{"target: ACCEPT", "priority: -1",
			"ingress-zones: libvirt-routed", "egress-zones: ANY"}},
		{"--info-policy=libvirt-routed-in", []string{"target: ACCEPT", "priority: -1",
			"ingress-zones: ANY", "egress-zones: libvirt-routed"}},
	} {
		for _, permanent := range []bool{false, true} {
			args := []string{tt.arg}
			if permanent {
				args = append(args, "--permanent")
			}
			got := facts(f.cmd(args...))
			if diff := cmp.Diff(slices.Sorted(slices.Values(tt.want)), got); diff != "" {
				t.Errorf("firewall-cmd %s: %s", args, diff)
			}
		}
	}
}

// facts returns the lines that hold a setting, without those that are off.
func facts(info string) []string {
	var out []string
	for _, line := range strings.Split(info, "\n")[1:] {
		line = strings.TrimSpace(line)
		off := regexp.MustCompile(`(^|: )(no|)$`).MatchString(line) && line != "forward: no"
		// firewalld 2 prints this for a zone that has none.
		off = off || line == "ingress-priority: 0" || line == "egress-priority: 0"
		if line != "" && !off && !strings.HasSuffix(line, ":") {
			out = append(out, line)
		}
	}
	return slices.Sorted(slices.Values(out))
}

// putFiles copies our files to a folder that firewalld reads.
func (f *firewalld) putFiles(dir string) {
	f.t.Helper()
	err := fs.WalkDir(zones.Files(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(zones.Files(), path)
		if err != nil {
			return err
		}
		return f.WriteFile(dir+"/"+path, text, 0o644)
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// What somebody else installed, even the same files, is neither installed again
// nor removed.
func TestFilesOfOthersEqualOursAndStay(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"/etc/firewalld", "/usr/lib/firewalld"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			f := newHost(t)
			f.putFiles(dir)
			f.Firewalld("nftables")
			checkFacts(t, f)
			before := f.state()
			if installed, err := f.Install(t.Context(), false, nil); err != nil || len(installed) != 0 {
				t.Errorf("Install = %q, %v", installed, err)
			}
			if removed, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil); err != nil || len(removed) != 0 {
				t.Errorf("Remove = %q, %v", removed, err)
			}
			if diff := cmp.Diff(before, f.state()); diff != "" {
				t.Errorf("changed: %s", diff)
			}
		})
	}
}

// Files that came after firewalld's start, as with the installation of
// libvirt's package, need the reload and nothing else.
func TestInstallLoadsWhatIsThereAlready(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.putFiles("/etc/firewalld")
	want := f.Must("sh", "-c", "cat /etc/firewalld/zones/libvirt*.xml")
	if _, err := f.Install(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	checkFacts(t, f)
	if got := f.Must("sh", "-c", "cat /etc/firewalld/zones/libvirt*.xml"); got != want {
		t.Errorf("the files were written over: %s", cmp.Diff(want, got))
	}
}

func TestInstallKeepsAnAdministratorsZone(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.cmd("--permanent", "--new-zone=libvirt")
	f.cmd("--permanent", "--zone=libvirt", "--add-service=http")
	f.cmd("--reload")
	mine := f.cmd("--info-zone=libvirt")
	installed, err := f.Install(t.Context(), false, nil)
	if err != nil || slices.Contains(installed, "libvirt") || len(installed) != len(allOurs)-1 {
		t.Errorf("Install = %q, %v", installed, err)
	}
	removed, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil)
	if err != nil || slices.Contains(removed, "libvirt") || len(removed) != len(allOurs)-1 {
		t.Errorf("Remove = %q, %v", removed, err)
	}
	if got := f.cmd("--info-zone=libvirt"); got != mine {
		t.Errorf("the zone was changed: %s", cmp.Diff(mine, got))
	}
}

func TestBind(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	// None, or since firewalld 2 the default one.
	before := f.cmd("--get-active-zones")
	f.Bridge("virbr0", "192.168.122.1/24")
	ctx := t.Context()

	for range 2 {
		if bound, err := f.Bind(ctx, "virbr0", "libvirt"); bound != "libvirt" || err != nil {
			t.Errorf("Bind = %q, %v", bound, err)
		}
		f.wantZone("virbr0", "libvirt")
	}
	if bound, err := f.Bind(ctx, "virbr0", "libvirt-routed"); bound != "libvirt-routed" || err != nil {
		t.Errorf("moving: %q, %v", bound, err)
	}
	if bound, err := f.Bind(ctx, "virbr9", "libvirt"); bound != "libvirt" || err != nil {
		t.Errorf("a bridge that does not exist yet: %q, %v", bound, err)
	}
	got, err := f.Interfaces(ctx)
	want := map[string]string{"virbr0": "libvirt-routed", "virbr9": "libvirt"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Interfaces: %v, %s", err, diff)
	}
	_, err = f.Bind(ctx, "virbr0", "dmz7")
	if !errors.Is(err, zones.ErrZoneNotFound{Zone: "dmz7"}) || !strings.Contains(err.Error(), `"dmz7"`) {
		t.Errorf("a zone that does not exist: %v", err)
	}
	f.wantZone("virbr0", "libvirt-routed")
	if _, err := f.Bind(ctx, "no good", "libvirt"); err == nil {
		t.Error("binding an impossible name worked")
	}

	if err := f.Unbind(ctx, "libvirt", "virbr0"); err != nil {
		t.Errorf("unbinding from a zone that it is not in: %v", err)
	}
	f.wantZone("virbr0", "libvirt-routed")
	f.Must("ip", "link", "delete", "virbr0")
	for _, zone := range []string{"libvirt-routed", "libvirt-routed", "", "dmz7"} {
		if err := f.Unbind(ctx, zone, "virbr0"); err != nil {
			t.Errorf("unbinding a bridge that is gone from %q: %v", zone, err)
		}
	}
	if err := f.Unbind(ctx, "", "virbr9"); err != nil {
		t.Error(err)
	}
	f.wantZone("virbr0", "")
	f.wantZone("virbr9", "")
	if got := f.cmd("--get-active-zones"); got != before || strings.Contains(got, "interfaces") {
		t.Errorf("firewalld keeps %q, before %q", got, before)
	}
}

func TestBindAllReportsEach(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	var all []zones.Binding
	for i := range 20 {
		all = append(all, zones.Binding{Interface: fmt.Sprintf("virbr%d", i), Zone: "libvirt"})
	}
	all[7].Zone = "dmz7"
	for i, err := range f.BindAll(t.Context(), all) {
		if want := i == 7; errors.Is(err, zones.ErrZoneNotFound{Zone: "dmz7"}) != want || (err != nil) != want {
			t.Errorf("virbr%d: %v", i, err)
		}
	}
	if got, err := f.Interfaces(t.Context()); len(got) != 19 || err != nil {
		t.Errorf("%d interfaces are bound, %v", len(got), err)
	}
}

func TestWithoutFirewalld(t *testing.T) {
	t.Parallel()
	f := newHost(t)
	ctx := t.Context()
	if f.Running(ctx) {
		t.Error("it runs")
	}
	if have, err := f.Installed(ctx); have.Running || err != nil {
		t.Errorf("Installed = %v, %v", have, err)
	}
	for name, call := range map[string]func() error{
		"Backend":    func() error { _, err := f.Backend(ctx); return err },
		"Zones":      func() error { _, err := f.Zones(ctx); return err },
		"Bind":       func() error { _, err := f.Bind(ctx, "virbr0", "libvirt"); return err },
		"Unbind":     func() error { return f.Unbind(ctx, "", "virbr0") },
		"ZoneOf":     func() error { _, err := f.ZoneOf(ctx, "virbr0"); return err },
		"Interfaces": func() error { _, err := f.Interfaces(ctx); return err },
		"Install":    func() error { _, err := f.Install(ctx, true, nil); return err },
		"Remove":     func() error { _, err := f.Remove(ctx, zones.Removal{Unbind: true}, nil); return err },
	} {
		if err := call(); !errors.Is(err, zones.ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBackend(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	if got, err := f.Backend(t.Context()); got != "nftables" || err != nil {
		t.Errorf("Backend = %q, %v", got, err)
	}
	if !f.Running(t.Context()) {
		t.Error("it does not run")
	}
}

// next waits for an event; another one before it fails the test.
func next(t *testing.T, events <-chan zones.Event) zones.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
	return zones.Event{}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	f := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := f.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := func(e zones.Event) {
		t.Helper()
		if got := next(t, events); got != e {
			t.Errorf("event %v, want %v", got, e)
		}
	}
	daemon := f.Firewalld("nftables")
	want(zones.Event{Kind: zones.Appeared})
	f.wantKnown(true, false)
	f.install()
	want(zones.Event{Kind: zones.Reloaded})
	f.wantKnown(true, true)

	f.cmd("--zone=public", "--add-interface=virbr0")
	want(zones.Event{Kind: zones.BindingChanged, Interface: "virbr0", Zone: "public"})
	if _, err := f.Bind(ctx, "virbr0", "libvirt"); err != nil {
		t.Error(err)
	}
	want(zones.Event{Kind: zones.BindingChanged, Interface: "virbr0", Zone: "libvirt"})
	f.cmd("--remove-interface=virbr0")
	want(zones.Event{Kind: zones.BindingChanged, Interface: "virbr0"})
	f.cmd("--add-service=http")
	f.cmd("--complete-reload")
	want(zones.Event{Kind: zones.Reloaded})

	if err := daemon.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want(zones.Event{Kind: zones.Vanished})
	f.wantKnown(false, false)
	f.Firewalld("nftables")
	want(zones.Event{Kind: zones.Appeared})
	f.wantKnown(true, true)
	cancel()
	for range events {
		t.Error("an event after the end")
	}
}

// wantKnown checks the client's cached answers.
func (f *firewalld) wantKnown(running, libvirt bool) {
	f.t.Helper()
	have, err := f.Installed(f.t.Context())
	if err != nil || have.Running != running || slices.Contains(have.Zones, "libvirt") != libvirt {
		f.t.Errorf("Installed = %v, %v", have, err)
	}
	if f.Running(f.t.Context()) != running {
		f.t.Errorf("running is not %v", running)
	}
}
