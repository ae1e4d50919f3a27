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

	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service"
	needs "github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// faults makes one of the calls that an operation makes fail.
type faults struct {
	mu    sync.Mutex
	at    int  // which call; 0 for none
	after bool // it is done all the same: its answer was lost
	dead  bool // and so do all that follow, as if the service was killed
	calls []string
	// stuck is a firewalld that does not answer: a binding that counts waits for
	// what comes of it, and from then on nobody else waits for firewalld.
	stuck chan error
	waits bool
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
	f.at, f.after, f.dead, f.calls = at, after, false, nil
}

// armKill makes the call and all after it fail.
func (f *faults) armKill(at int) {
	f.arm(at, false)
	f.dead = true
}

// disarm gives the calls that were made.
func (f *faults) disarm() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.dead = 0, false
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
	fail, after := len(f.calls) == f.at || f.dead && len(f.calls) > f.at, f.after
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
	service.NFTables
	*faults
}

// noLeftovers is a host that libvirt never ran on; looking would happen in the
// network namespace of the test.
type noLeftovers struct{}

func (noLeftovers) State() libvirt.State { return libvirt.State{} }

func (noLeftovers) Follow(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (noLeftovers) Present(context.Context, []network.Network) (neighbour.Presence, error) {
	return neighbour.Presence{}, nil
}

func (noLeftovers) Remove(context.Context, []network.Network, xtables.Variant) (neighbour.Report, error) {
	return neighbour.Report{}, nil
}

func (r faultyRules) Apply(ctx context.Context, c service.Change) error {
	return r.in(ctx, "Apply", func() error { return r.NFTables.Apply(ctx, c) })
}

func (r faultyRules) Counters(ctx context.Context) (out map[string]ruleset.Counters, err error) {
	err = r.in(ctx, "Counters", func() error { out, err = r.NFTables.Counters(ctx); return err })
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

func (z faultyZones) Unanswered() time.Duration {
	if z.waiting() {
		return time.Hour
	}
	return z.Client.Unanswered()
}

func (f *faults) waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waits
}

// wait is for the answer of a firewalld that is stuck, if it is.
func (f *faults) wait(ctx context.Context) error {
	f.mu.Lock()
	gate := f.stuck
	waits := gate != nil && ctx.Value(faultKey{}) == f
	f.waits = f.waits || waits
	f.mu.Unlock()
	if !waits {
		return nil
	}
	err := <-gate
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck, f.waits = nil, false
	return err
}

func (z faultyZones) BindAll(ctx context.Context, bindings []zones.Binding) (errs []error) {
	if err := z.wait(ctx); err != nil {
		return slices.Repeat([]error{err}, len(bindings))
	}
	err := z.in(ctx, "Bind", func() error {
		errs = z.Client.BindAll(ctx, bindings)
		return errors.Join(errs...)
	})
	if err != nil && errs == nil || errors.Is(err, errInjected) {
		errs = slices.Repeat([]error{err}, len(bindings))
	}
	return errs
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
	return s.undo(undo), err
}

func (s faultyFiles) Remove(name string, persistent bool) (undo func() error, err error) {
	err = s.call("Remove", false, func() error { undo, err = s.Store.Remove(name, persistent); return err })
	return s.undo(undo), err
}

func (s faultyFiles) ForgetRuntimeChanges(read store.State) (undo func() error, err error) {
	err = s.call("ForgetRuntimeChanges", false, func() error { undo, err = s.Store.ForgetRuntimeChanges(read); return err })
	return s.undo(undo), err
}

// undo is not a step of its own, but nobody who was killed takes it.
func (s faultyFiles) undo(undo func() error) func() error {
	return func() error {
		s.mu.Lock()
		dead := s.dead
		s.mu.Unlock()
		if dead {
			return errInjected
		}
		return undo()
	}
}

// noNeeds keeps the service in this process from the machine's own sysctls.
type noNeeds struct{}

func (noNeeds) Forward(context.Context, needs.Demand) ([]string, string, error) { return nil, "", nil }
func (noNeeds) ForwardingOff(needs.Demand) ([]string, error)                    { return nil, nil }
func (noNeeds) ForwardingNeeded(needs.Demand) []string                          { return nil }
func (noNeeds) Silence(int) (bool, error)                                       { return false, nil }
func (noNeeds) Restore(int) error                                               { return nil }
func (noNeeds) Silenced() []int                                                 { return nil }
func (noNeeds) Retranslate(context.Context, []service.Member) error             { return nil }
func (noNeeds) FillChecksums(context.Context, map[string]string) error          { return nil }

// noTable is a table that nobody else touches: it is owned.
type noTable struct{}

func (noTable) Touched() <-chan struct{} { return nil }
func (noTable) Take() []watch.Touch      { return nil }

// noChains are iptables' chains in nobody's hands.
type noChains struct{}

func (c noChains) Watch(string) (service.ChainWatch, error) { return c, nil }
func (noChains) NFT() <-chan struct{}                       { return nil }
func (noChains) Legacy() <-chan struct{}                    { return nil }
func (noChains) Take() []watch.Touch                        { return nil }
func (noChains) Close() error                               { return nil }

// world is the service within this process, with everything real below it that
// can be: kernel, firewalld, links, files.
type world struct {
	t     *testing.T
	h     *host.Host
	dir   string
	svc   *service.Service
	rules *nftables.Backend
	other *otherKernel
	links *watch.Monitor
	zones *zones.Client
	f     *faults
	ns    netns.NsHandle

	mu     sync.Mutex
	events []string
}

func newWorld(t *testing.T, h *host.Host, client *zones.Client) *world {
	t.Helper()
	w := &world{t: t, h: h, dir: t.TempDir(), zones: client, f: &faults{}, other: &otherKernel{held: map[string]int{}}}
	var err error
	w.ns, err = netns.GetFromPath(h.NetNS())
	fatal(t, err)
	t.Cleanup(func() { w.ns.Close() }) // the backend uses it as long as it is open
	w.writeBase()
	w.start()
	w.add(netXML("runtime", "virbr2", "nat", "10.2.0.1/24"), false)
	fatal(t, w.svc.UpdateNetwork(context.Background(), "changed", map[string]any{"ForwardMode": "isolated"}, service.ChangeOptions{}))
	w.compare()
	return w
}

// start makes a service over the files that there are.
func (w *world) start() {
	w.t.Helper()
	files, err := store.Open(store.Config{PersistentDir: w.path("etc/networks"), RuntimeDir: w.path("run"), StateDir: w.path("state"), Parse: network.FromXML})
	fatal(w.t, err)
	kept, err := files.LoadCounters()
	fatal(w.t, err)
	totals := service.NewTotals(kept)
	w.rules, err = nftables.Open(nftables.Config{Owned: true, NetNS: int(w.ns), StartValues: totals.Of})
	fatal(w.t, err)
	w.links, err = watch.Start(context.Background(), watch.Config{NetNS: w.ns})
	fatal(w.t, err)
	w.svc = service.New("test", service.Deps{
		Advertisements: noNeeds{},
		Backends:       bothBackends{faultyRules{service.NFTables{Kernel: w.rules}, w.f}, otherRules{w.other, w.f}}, Leftovers: noLeftovers{}, Libvirt: noLeftovers{},
		Links: faultyLinks{w.links, w.f}, Table: noTable{}, Chains: noChains{}, Zones: faultyZones{w.zones, w.f}, Firewalld: w.zones,
		Files: faultyFiles{files, w.f}, Records: files, Leaving: files, Host: noNeeds{}, Settings: faultySettings{service.ConfigFiles{Dir: w.path("etc"), Libvirt: w.path("network.conf")}, w.f}, Totals: totals,
		Log: slog.New(slog.DiscardHandler), Notify: w.notify,
	})
	fatal(w.t, w.svc.Start(context.Background()))
}

// compare has all brought in order, so that zones need not be waited for. A
// firewalld that is slow on a busy machine is given its time.
func (w *world) compare() {
	w.t.Helper()
	for deadline := time.Now().Add(callTimeout); ; time.Sleep(10 * time.Millisecond) {
		_, err := w.svc.Reapply(context.Background())
		fatal(w.t, err)
		waiting := slices.ContainsFunc(w.svc.AllNetworks(), func(st service.Status) bool { return st.State == service.StateDegraded })
		if !waiting {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the networks do not become active")
		}
	}
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
	// Totals of an earlier run, so that counters which are made anew are seen.
	fatal(w.t, os.WriteFile(w.path("run/counters.json"), []byte(`{"kept":{"FromGuestPackets":1000},"changed":{"ToGuestPackets":2000}}`), 0o644))
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

// close ends the service and takes away what it left on the host.
func (w *world) close() {
	w.t.Helper()
	for _, st := range w.svc.AllNetworks() {
		if err := w.svc.RemoveNetwork(context.Background(), st.Network.Name, service.ChangeOptions{Persistent: true}); err != nil {
			w.t.Error(err)
		}
	}
	w.stop()
	if out, err := w.h.Run("nft", "list", "table", "inet", "libvirt_network"); err == nil {
		w.t.Errorf("a table is left:\n%s", out)
	}
}

// stop ends the service and leaves what is in force.
func (w *world) stop() {
	w.t.Helper()
	if err := errors.Join(w.svc.Close(), w.links.Close(), w.rules.Close()); err != nil {
		w.t.Error(err)
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
	Other    map[string]int
	Zones    map[string]string
	Files    map[string]string
	Networks []string
	Host     string
}

func (w *world) state() state {
	w.t.Helper()
	bound, err := w.zones.Interfaces(context.Background())
	fatal(w.t, err)
	s := state{Kernel: tableLines(w.h), Other: w.other.lines(), Zones: bound, Files: filesBelow(w.t, w.dir), Host: strings.ReplaceAll(fmt.Sprintf("%+v", w.svc.HostStatus()), w.dir, "")}
	for _, st := range w.svc.AllNetworks() {
		s.Networks = append(s.Networks, fmt.Sprintf("%+v", st))
	}
	return s
}

// tableLines are the lines of the table, each element in one, in an order that
// does not say in which order they were made.
func tableLines(h *host.Host) []string {
	out, _ := h.Run("nft", "list", "table", "inet", "libvirt_network")
	lines := strings.Split(strings.NewReplacer("elements = { ", "\n", ",", "\n").Replace(withoutProgram(out)), "\n")
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
		files[strings.TrimPrefix(path, dir)] = string(text)
		return err
	}))
	return files
}
