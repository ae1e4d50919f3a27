package servicetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Platform is what a service runs on: a kernel, a firewalld and a host, in-memory
// or real. It outlives the service.
type Platform interface {
	// Deps returns the dependencies of one run of the service, except for files.
	// Counters begin at what start returns; done ends the run.
	Deps(t testing.TB, start func(network string) ruleset.Counters) (d service.Deps, nftables backend.Backend, done func() error)
	// Rules returns what nf_tables holds, and Zones the zone of each interface.
	Rules() []string
	Zones(t testing.TB) map[string]string
}

// World is a service in this process on a platform, with real files in its own
// folder, and faults between service and platform.
type World struct {
	T        testing.TB
	Service  *service.Service
	Faults   *Faults
	Platform Platform
	Chains   *Chains // the chains of the iptables backend
	Log      *slog.Logger
	// Lacks are backends that the host does not have, with the reason.
	Lacks choice.Available

	dir  string
	done func() error

	mu     sync.Mutex
	events []service.Event
}

// NewWorld returns a world whose service is not running yet.
func NewWorld(t testing.TB, p Platform) *World {
	t.Helper()
	w := &World{T: t, Faults: &Faults{}, Platform: p, Chains: &Chains{}, Log: slog.New(slog.DiscardHandler), dir: t.TempDir()}
	for _, dir := range []string{"etc/networks", "run", "state", "libvirt"} {
		w.Must(os.MkdirAll(w.Path(dir), 0o755))
	}
	return w
}

// Must fails the test if there is an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Path returns the path of a file in the world's folder.
func (w *World) Path(name string) string { return filepath.Join(w.dir, name) }

// Write writes a persistent network's file or, if the name has a slash, any other.
func (w *World) Write(file, text string) {
	w.T.Helper()
	if !strings.Contains(file, "/") {
		file = "etc/networks/" + file
	}
	w.Must(os.WriteFile(w.Path(file), []byte(text), 0o644))
}

// Start starts a service on the existing files.
func (w *World) Start() {
	w.T.Helper()
	w.Must(w.TryStart())
}

// TryStart is Start, but returns the error.
func (w *World) TryStart() error {
	w.T.Helper()
	files, err := store.Open(store.Config{PersistentDir: w.Path("etc/networks"), RuntimeDir: w.Path("run"), StateDir: w.Path("state"), Parse: network.FromXML})
	w.Must(err)
	kept, err := files.LoadCounters()
	w.Must(err)
	totals := service.NewTotals(kept)
	d, rules, done := w.Platform.Deps(w.T, totals.Of)
	w.done = done
	d.Backends = backends{w, faultyBackend{rules, w.Faults, ""}, faultyBackend{w.Chains.Open(), w.Faults, " to iptables"}}
	d.Links = faultyLinks{d.Links, w.Faults}
	d.Zones = faultyZones{d.Zones, w.Faults}
	d.Files, d.Records, d.Leaving = faultyFiles{files, w.Faults}, files, files
	d.Settings = faultySettings{service.ConfigFiles{Dir: w.Path("etc"), Libvirt: w.Path("network.conf"), State: w.Path("state")}, w.Faults}
	d.Totals, d.Log, d.Notify = totals, w.Log, w.notify
	w.Service = service.New("test", d)
	return w.Service.Start(context.Background())
}

// Stop stops the service and leaves its rules in force.
func (w *World) Stop() {
	w.T.Helper()
	if err := errors.Join(w.Service.Close(), w.done()); err != nil {
		w.T.Error(err)
	}
}

// Kill stops a service that Faults has killed, so its end may fail.
func (w *World) Kill() {
	w.T.Helper()
	if err := errors.Join(w.Service.Close(), w.done()); err != nil && !errors.Is(err, ErrInjected) {
		w.T.Error(err)
	}
}

// backends are the backends of a world. Nothing is probed.
type backends struct {
	w                  *World
	nftables, iptables backend.Backend
}

func (b backends) Get(name string) backend.Backend {
	if name == choice.IPTables {
		return b.iptables
	}
	return b.nftables
}

func (backends) Variants() xtables.Variants {
	return xtables.Variants{IPv4: xtables.VariantNFT, IPv6: xtables.VariantNFT}
}

func (b backends) Available(context.Context, choice.Configured) choice.Available {
	a := b.w.Lacks
	a.NFT = true
	return a
}

// Compare reapplies everything until no network is degraded, so that tests need
// not wait for zones. A firewalld on a busy machine may take a while.
func (w *World) Compare() {
	w.T.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := w.Service.Reapply(context.Background())
		w.Must(err)
		waiting := slices.ContainsFunc(w.Service.AllNetworks(), func(st service.Status) bool { return st.State == service.StateDegraded })
		if !waiting {
			return
		}
		if time.Now().After(deadline) {
			w.T.Fatal("the networks do not become active")
		}
	}
}

// Add adds a network by its document.
func (w *World) Add(ctx context.Context, doc string, o service.ChangeOptions) error {
	n, err := network.FromXML([]byte(doc))
	if err != nil {
		return err
	}
	o.Source = []byte(doc)
	return w.Service.AddNetwork(ctx, n, o)
}

// RemoveAll removes every network.
func (w *World) RemoveAll() {
	w.T.Helper()
	for _, st := range w.Service.AllNetworks() {
		if err := w.Service.RemoveNetwork(context.Background(), st.Network.Name, service.ChangeOptions{Persistent: true}); err != nil {
			w.T.Error(err)
		}
	}
}

func (w *World) notify(e service.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// Events returns the events since the last call.
func (w *World) Events() []service.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// State is everything that a failed call must not change.
type State struct {
	Rules    []string
	Chains   map[string]string
	Zones    map[string]string
	Files    map[string]string
	Networks []string
	Host     string
}

// State returns the present state.
func (w *World) State() State {
	w.T.Helper()
	s := State{
		Rules: w.Platform.Rules(), Chains: w.Chains.Lines(), Zones: w.Platform.Zones(w.T), Files: w.files(),
		Host: strings.ReplaceAll(fmt.Sprintf("%+v", w.Service.HostStatus()), w.dir, ""),
	}
	for _, st := range w.Service.AllNetworks() {
		s.Networks = append(s.Networks, fmt.Sprintf("%+v", st))
	}
	return s
}

// files returns the text of each file except the counters, which are saved at any
// time.
func (w *World) files() map[string]string {
	w.T.Helper()
	files := map[string]string{}
	w.Must(filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "counters.json" {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, w.dir)] = strings.ReplaceAll(string(text), w.dir, "")
		return err
	}))
	return files
}

// Logger returns a logger that writes to w.
func Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(&lockedWriter{w: w}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
