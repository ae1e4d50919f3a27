package tests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// faults makes one of the calls that an operation makes fail.
type faults struct {
	mu    sync.Mutex
	at    int  // which call; 0 for none
	after bool // it is done all the same: its answer was lost
	calls []string
}

var errInjected = errors.New("injected failure")

type faultKey struct{}

// mark makes a context whose calls count; others are the service's own.
func (f *faults) mark(ctx context.Context) context.Context {
	return context.WithValue(ctx, faultKey{}, f)
}

func (f *faults) arm(at int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.after, f.calls = at, after, nil
}

// disarm gives the calls that were made.
func (f *faults) disarm() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = 0
	return f.calls
}

// in makes a call under a context, if it is one that counts.
func (f *faults) in(ctx context.Context, name string, do func() error) error {
	if ctx.Value(faultKey{}) != f {
		return do()
	}
	return f.call(name, true, do)
}

func (f *faults) call(name string, canBeLost bool, do func() error) error {
	f.mu.Lock()
	if f.at == 0 {
		f.mu.Unlock()
		return do()
	}
	f.calls = append(f.calls, name)
	fail, after := len(f.calls) == f.at, f.after
	f.mu.Unlock()
	if fail && (!after || !canBeLost) {
		return fmt.Errorf("%s: %w", name, errInjected)
	}
	if err := do(); err != nil || !fail {
		return err
	}
	return fmt.Errorf("%s: %w after it was done", name, errInjected)
}

type faultyRules struct {
	*nftables.Backend
	*faults
}

func (r faultyRules) Apply(ctx context.Context, c ruleset.Change) error {
	return r.in(ctx, "Apply", func() error { return r.Backend.Apply(ctx, c) })
}

func (r faultyRules) Counters(ctx context.Context) (out map[string]ruleset.Counters, err error) {
	err = r.in(ctx, "Counters", func() error { out, err = r.Backend.Counters(ctx); return err })
	return out, err
}

type faultyLinks struct {
	*watch.Monitor
	*faults
}

func (l faultyLinks) Query(name string) (link watch.Link, ok bool, err error) {
	err = l.call("Query", false, func() error { link, ok, err = l.Monitor.Query(name); return err })
	return link, ok, err
}

type faultyZones struct {
	*zones.Client
	*faults
}

func (z faultyZones) Installed(ctx context.Context) (out zones.Installed, err error) {
	err = z.in(ctx, "Installed", func() error { out, err = z.Client.Installed(ctx); return err })
	return out, err
}

func (z faultyZones) Interfaces(ctx context.Context) (out map[string]string, err error) {
	err = z.in(ctx, "Interfaces", func() error { out, err = z.Client.Interfaces(ctx); return err })
	return out, err
}

func (z faultyZones) Bind(ctx context.Context, iface, zone string) (bound string, err error) {
	err = z.in(ctx, "Bind", func() error { bound, err = z.Client.Bind(ctx, iface, zone); return err })
	return bound, err
}

func (z faultyZones) Unbind(ctx context.Context, zone, iface string) error {
	return z.in(ctx, "Unbind", func() error { return z.Client.Unbind(ctx, zone, iface) })
}

// faultyFiles cannot lose answers: the store takes back itself what failed, and
// has tests of its own for that.
type faultyFiles struct {
	*store.Store
	*faults
}

func (s faultyFiles) Read() (out store.State, broken []store.FileError, err error) {
	err = s.call("Read", false, func() error { out, broken, err = s.Store.Read(); return err })
	return out, broken, err
}

func (s faultyFiles) Put(name string, doc []byte, persistent bool) (undo func() error, err error) {
	err = s.call("Put", false, func() error { undo, err = s.Store.Put(name, doc, persistent); return err })
	return undo, err
}

func (s faultyFiles) Remove(name string, persistent bool) (undo func() error, err error) {
	err = s.call("Remove", false, func() error { undo, err = s.Store.Remove(name, persistent); return err })
	return undo, err
}

func (s faultyFiles) ForgetRuntimeChanges(read store.State) (undo func() error, err error) {
	err = s.call("ForgetRuntimeChanges", false, func() error { undo, err = s.Store.ForgetRuntimeChanges(read); return err })
	return undo, err
}

// noNeeds keeps the service in this process from the machine's own sysctls.
type noNeeds struct{}

func (noNeeds) Forward(context.Context, bool, bool) (string, error)    { return "", nil }
func (noNeeds) Retranslate(context.Context, []network.Network) error   { return nil }
func (noNeeds) FillChecksums(context.Context, map[string]string) error { return nil }

// world is the service within this process, with everything real below it that
// can be: kernel, firewalld, links, files.
type world struct {
	t     *testing.T
	h     *host.Host
	dir   string
	svc   *service.Service
	rules *nftables.Backend
	links *watch.Monitor
	zones *zones.Client
	f     *faults

	mu     sync.Mutex
	events []string
}

func newWorld(t *testing.T, h *host.Host, client *zones.Client) *world {
	t.Helper()
	w := &world{t: t, h: h, dir: t.TempDir(), zones: client, f: &faults{}}
	ns, err := netns.GetFromPath(h.NetNS())
	fatal(t, err)
	t.Cleanup(func() { ns.Close() }) // the backend uses it as long as it is open
	// Totals from an earlier run, so that counters which are made anew are seen.
	totals := service.NewTotals(map[string]ruleset.Counters{"kept": {FromGuestPackets: 1000}, "runtime": {ToGuestPackets: 2000}})
	w.rules, err = nftables.Open(nftables.Config{Owned: true, NetNS: int(ns), StartValues: totals.Of})
	fatal(t, err)
	w.links, err = watch.Start(context.Background(), watch.Config{NetNS: ns})
	fatal(t, err)
	w.writeBase()
	files, err := store.Open(store.Config{PersistentDir: w.path("etc/networks"), RuntimeDir: w.path("run"), Parse: network.FromXML})
	fatal(t, err)
	w.svc = service.New("test", service.Deps{
		Rules: faultyRules{w.rules, w.f}, Links: faultyLinks{w.links, w.f}, Zones: faultyZones{client, w.f}, ZoneFiles: client,
		Files: faultyFiles{files, w.f}, Host: noNeeds{}, Settings: service.ConfigDir(w.path("etc")), Totals: totals,
		Log: slog.New(slog.DiscardHandler), Notify: w.notify,
	})
	ctx := context.Background()
	fatal(t, w.svc.Start(ctx))
	w.add(netXML("runtime", "virbr2", "nat", "10.2.0.1/24"), false)
	fatal(t, w.svc.UpdateNetwork(ctx, "changed", map[string]any{"ForwardMode": "isolated"}, service.ChangeOptions{}))
	w.awaitZones()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) writeBase() {
	w.t.Helper()
	fatal(w.t, os.MkdirAll(w.path("etc/networks"), 0o755))
	fatal(w.t, os.MkdirAll(w.path("run"), 0o755))
	fatal(w.t, os.WriteFile(w.path("run/counters.json"), []byte(`{"kept":{"FromGuestPackets":1000}}`), 0o644))
	w.write("kept.xml", netXML("kept", "virbr1", "nat6", "10.1.0.1/24", "2001:db8:1::1/64"))
	w.write("changed.xml", netXML("changed", "virbr3", "route", "10.3.0.1/24"))
}

func (w *world) write(file, doc string) {
	w.t.Helper()
	fatal(w.t, os.WriteFile(w.path("etc/networks/"+file), []byte(doc), 0o644))
}

func (w *world) add(doc string, persistent bool) {
	w.t.Helper()
	fatal(w.t, addXML(context.Background(), w.svc, doc, service.ChangeOptions{Persistent: persistent}))
}

func addXML(ctx context.Context, svc *service.Service, doc string, o service.ChangeOptions) error {
	n, err := network.FromXML([]byte(doc))
	if err != nil {
		return err
	}
	o.Source = []byte(doc)
	return svc.AddNetwork(ctx, n, o)
}

// awaitZones waits until the networks are in the zones that a start puts them
// in, which it does after it is ready.
func (w *world) awaitZones() {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		bound, err := w.zones.Interfaces(context.Background())
		fatal(w.t, err)
		settled := true
		for _, st := range w.svc.AllNetworks() {
			settled = settled && st.BoundZone != "" && st.BoundZone == bound[st.Network.Bridge]
		}
		if settled {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("bridges are not in their zones: %v", bound)
		}
	}
}

// close ends the service and takes away what it left on the host.
func (w *world) close() {
	w.t.Helper()
	for _, st := range w.svc.AllNetworks() {
		if err := w.svc.RemoveNetwork(context.Background(), st.Network.Name, service.ChangeOptions{Persistent: true}); err != nil {
			w.t.Error(err)
		}
	}
	if err := errors.Join(w.svc.Close(), w.links.Close(), w.rules.Close()); err != nil {
		w.t.Error(err)
	}
	if out, err := w.h.Run("nft", "list", "table", "inet", "libvirt_network"); err == nil {
		w.t.Errorf("a table is left:\n%s", out)
	}
}

func (w *world) notify(e service.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf("%T %+v", e, e))
}

func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// state is all that a failed call must not change.
type state struct {
	Kernel   []string
	Zones    map[string]string
	Files    map[string]string
	Networks []string
	Host     string
}

func (w *world) state() state {
	w.t.Helper()
	bound, err := w.zones.Interfaces(context.Background())
	fatal(w.t, err)
	s := state{Kernel: tableLines(w.h), Zones: bound, Files: filesBelow(w.t, w.dir), Host: fmt.Sprintf("%+v", w.svc.HostStatus())}
	for _, st := range w.svc.AllNetworks() {
		s.Networks = append(s.Networks, fmt.Sprintf("%+v", st))
	}
	return s
}

// tableLines are the lines of the table, each element in one, in an order that
// does not say in which order they were made.
func tableLines(h *host.Host) []string {
	out, _ := h.Run("nft", "list", "table", "inet", "libvirt_network")
	lines := strings.Split(strings.NewReplacer("elements = { ", "\n", ",", "\n").Replace(out), "\n")
	for i := range lines {
		lines[i] = strings.Trim(lines[i], " \t}")
	}
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

func filesBelow(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	fatal(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "counters.json" {
			return err // totals that were read are kept at any time
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	}))
	return files
}

// operation is a call that consists of several steps.
type operation struct {
	name string
	do   func(ctx context.Context, w *world) error
}

func operations() []operation {
	add := func(doc string, o service.ChangeOptions) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error { return addXML(ctx, w.svc, doc, o) }
	}
	update := func(name string, persistent bool, pairs ...any) func(context.Context, *world) error {
		settings := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			settings[pairs[i].(string)] = pairs[i+1]
		}
		return func(ctx context.Context, w *world) error {
			return w.svc.UpdateNetwork(ctx, name, settings, service.ChangeOptions{Persistent: persistent})
		}
	}
	remove := func(name string, persistent bool) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			return w.svc.RemoveNetwork(ctx, name, service.ChangeOptions{Persistent: persistent})
		}
	}
	zoned := func(doc, zone string) string {
		return strings.Replace(doc, "<bridge ", "<bridge zone='"+zone+"' ", 1)
	}
	fresh := netXML("new", "virbr4", "nat", "10.4.0.1/24")
	return []operation{
		{"add", add(fresh, service.ChangeOptions{})},
		{"add for good", add(fresh, service.ChangeOptions{Persistent: true})},
		{"add with a zone", add(zoned(fresh, "trusted"), service.ChangeOptions{})},
		// firewalld has virbr5 in zone work before anybody asks for it.
		{"add with a zone, bridge in another", add(zoned(netXML("new", "virbr5", "nat", "10.5.0.1/24"), "trusted"), service.ChangeOptions{Persistent: true})},
		{"replace", add(netXML("runtime", "virbr2", "route", "10.2.0.1/24"), service.ChangeOptions{Replace: true})},
		{"replace for good", add(netXML("runtime", "virbr2", "route", "10.2.0.1/24"), service.ChangeOptions{Replace: true, Persistent: true})},
		{"replace with another bridge and a zone", add(zoned(netXML("kept", "virbr5", "nat", "10.5.0.1/24"), "trusted"), service.ChangeOptions{Replace: true})},
		{"update zone", update("kept", true, "Zone", "trusted")},
		{"update zone of a changed one", update("changed", true, "Zone", "trusted")},
		{"update bridge", update("kept", false, "Bridge", "virbr4", "Addresses", []string{"10.4.0.1/24"})},
		{"update bridge and zone", update("kept", true, "Bridge", "virbr5", "Zone", "trusted", "Addresses", []string{"10.5.0.1/24"})},
		{"update subnet", update("runtime", false, "Addresses", []string{"10.77.0.1/24"})},
		{"update mode", update("kept", false, "ForwardMode", "route", "NATIPv6", false)},
		{"update to open with a zone", update("runtime", true, "ForwardMode", "open", "Zone", "trusted")},
		{"remove runtime", remove("runtime", false)},
		{"remove until reload", remove("kept", false)},
		{"remove for good", remove("changed", true)},
		{"reload", func(ctx context.Context, w *world) error {
			w.write("kept.xml", netXML("kept", "virbr5", "route", "10.5.0.1/24"))
			w.write("by hand.xml", netXML("byhand", "virbr1", "nat", "10.1.0.1/24"))
			return w.svc.Reload(ctx)
		}},
		{"bind", func(ctx context.Context, w *world) error {
			_, err := w.svc.BindInterface(ctx, "virbr1", "trusted")
			return err
		}},
		{"unbind", func(ctx context.Context, w *world) error { return w.svc.UnbindInterface(ctx, "virbr1") }},
	}
}

// TestFailedCallsChangeNothing makes each step of each call fail in turn, once
// before it is done and once after, and compares all there is.
func TestFailedCallsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.zoneFiles(allZones...)
	r.Firewalld("nftables")
	for i := range 5 {
		r.Bridge(fmt.Sprintf("virbr%d", i+1), fmt.Sprintf("10.%d.0.1/24", i+1))
	}
	r.must(r.firewalldCall("zone.changeZoneOfInterface", "work", "virbr5"))
	client := zones.New(r.bus, slog.New(slog.DiscardHandler))
	for _, op := range operations() {
		for _, after := range []bool{false, true} {
			name := op.name
			if after {
				name += ", answers lost"
			}
			t.Run(name, func(t *testing.T) { failEachStep(t, r, client, op, after) })
		}
	}
}

// failEachStep tries until a call of the operation is left out: it has no more.
func failEachStep(t *testing.T, r *rig, client *zones.Client, op operation, after bool) {
	w := newWorld(t, r.Host, client)
	defer func() { rest(r, w) }()
	var failed []string
	for at := 1; ; at++ {
		prepare(op, w)
		before := w.state()
		w.told()
		w.f.arm(at, after)
		err := op.do(w.f.mark(context.Background()), w)
		calls := w.f.disarm()
		if len(calls) < at {
			if err != nil {
				t.Fatalf("without a failure: %v", err)
			}
			t.Logf("steps %q, of which failed the call: %q", calls, failed)
			if len(failed) == 0 {
				t.Error("no step can fail this call")
			}
			return
		}
		when := fmt.Sprintf("%s, call %d, failed", calls[at-1], at)
		if err == nil {
			// A zone that the network did not ask for fails no call.
			w.wantRepaired(when)
			rest(r, w)
			w = newWorld(t, r.Host, client)
			continue
		}
		failed = append(failed, calls[at-1])
		if !errors.Is(err, errInjected) {
			t.Errorf("%s: %v", when, err)
		}
		if diff := cmp.Diff(before, w.state()); diff != "" {
			t.Fatalf("%s and changed something (-before +after):\n%s", when, diff)
		}
		if events := w.told(); len(events) > 0 {
			t.Errorf("%s and told %q", when, events)
		}
		if n, err := w.svc.Reapply(context.Background()); n != 0 || err != nil {
			t.Errorf("%s and left %d networks to repair, %v", when, n, err)
		}
	}
}

// prepare does what an operation finds, so that it is part of what was before.
func prepare(op operation, w *world) {
	if op.name == "reload" {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // it writes its files and gets no further
		_ = op.do(ctx, w)
	}
}

// rest ends the world and puts the bridge back that firewalld had elsewhere.
func rest(r *rig, w *world) {
	w.close()
	r.must(r.firewalldCall("zone.changeZoneOfInterface", "work", "virbr5"))
}

// wantRepaired checks that one comparison later nothing is left to do.
func (w *world) wantRepaired(when string) {
	w.t.Helper()
	for range 2 {
		n, err := w.svc.Reapply(context.Background())
		if err != nil {
			w.t.Errorf("%s, then reapplied: %v", when, err)
		}
		if n == 0 {
			return
		}
	}
	w.t.Errorf("%s: a second comparison still finds something", when)
}
