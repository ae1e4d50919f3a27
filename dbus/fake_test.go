package dbus

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// fakeAPI stands for the service: it keeps networks and reports events as the
// service does, and fails or hangs on demand.
type fakeAPI struct {
	notify func(service.Event)

	mu       sync.Mutex
	networks map[string]service.Status
	host     service.Host
	journal  []string                    // what was asked for, with the arguments
	fault    func(context.Context) error // run at the start of each change
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{networks: map[string]service.Status{}, host: service.Host{
		Version: "1.2.3", Backend: "nftables", ConfiguredBackend: "auto", BackendSource: "probe",
		AvailableBackends: []string{"nftables"}, InstalledZones: []string{},
	}}
}

func kinded(k service.Kind, text string) error {
	return &service.Error{Kind: k, Err: fmt.Errorf("%s", text)}
}

// change runs f with the lock, as the service does with its events.
func (f *fakeAPI) change(ctx context.Context, what string, do func() error) error {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault != nil {
		if err := fault(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal = append(f.journal, what)
	return do()
}

func (f *fakeAPI) setFault(fault func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fakeAPI) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.journal)
}

func (f *fakeAPI) AddNetwork(ctx context.Context, n network.Network, o service.ChangeOptions) error {
	what := fmt.Sprintf("AddNetwork %s %s persistent=%v replace=%v source=%d", n.Name, n.Bridge, o.Persistent, o.Replace, len(o.Source))
	return f.change(ctx, what, func() error {
		old, known := f.networks[n.Name]
		if known && !o.Replace {
			return kinded(service.NetworkExists, "there is a network "+n.Name)
		}
		st := service.Status{Network: n, Persistent: o.Persistent, Backend: f.host.Backend, State: service.StateActive, BridgeIndex: 7}
		f.networks[n.Name] = st
		if known {
			f.notify(service.NetworkChanged{Old: old, New: st})
		} else {
			f.notify(service.NetworkAdded{Status: st})
		}
		return nil
	})
}

func (f *fakeAPI) RemoveNetwork(ctx context.Context, name string, o service.ChangeOptions) error {
	return f.change(ctx, fmt.Sprintf("RemoveNetwork %s persistent=%v", name, o.Persistent), func() error {
		st, ok := f.networks[name]
		if !ok {
			return kinded(service.NetworkNotFound, "there is no network "+name)
		}
		delete(f.networks, name)
		f.notify(service.NetworkRemoved{Status: st})
		return nil
	})
}

func (f *fakeAPI) UpdateNetwork(ctx context.Context, name string, settings map[string]any, o service.ChangeOptions) error {
	return f.change(ctx, fmt.Sprintf("UpdateNetwork %s %v persistent=%v", name, settings, o.Persistent), func() error {
		old, ok := f.networks[name]
		if !ok {
			return kinded(service.NetworkNotFound, "there is no network "+name)
		}
		st := old
		var err error
		if st.Network, err = old.Network.With(settings); err != nil {
			return err
		}
		f.networks[name] = st
		f.notify(service.NetworkChanged{Old: old, New: st})
		return nil
	})
}

func (f *fakeAPI) NetworkStatus(name string) (service.Status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.networks[name]
	return st, ok
}

func (f *fakeAPI) AllNetworks() []service.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]service.Status, 0, len(f.networks))
	for _, st := range f.networks {
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b service.Status) int { return cmp.Compare(a.Network.Name, b.Network.Name) })
	return all
}

func (f *fakeAPI) Ruleset(_ context.Context, name string) (string, error) {
	return "chain " + name + " { }\x00\xff\n", nil
}

func (f *fakeAPI) Counters(context.Context, string) (map[string]uint64, error) {
	return map[string]uint64{"FromGuestPackets": 1 << 40, "ToGuestPackets": 2}, nil
}

func (f *fakeAPI) HostStatus() service.Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.host
}

func (f *fakeAPI) Preview(_ context.Context, n network.Network, backend string) (string, error) {
	return fmt.Sprintf("preview %s %q", n.Name, backend), nil
}

func (f *fakeAPI) SetBackend(ctx context.Context, backend string, o service.ChangeOptions) error {
	return f.change(ctx, fmt.Sprintf("SetBackend %s persistent=%v", backend, o.Persistent), func() error {
		old := f.host
		f.host.Backend = backend
		f.notify(service.HostChanged{Old: old, New: f.host})
		return nil
	})
}

func (f *fakeAPI) Reload(ctx context.Context) error {
	return f.change(ctx, "Reload", func() error { return nil })
}

func (f *fakeAPI) Reapply(ctx context.Context) (n int, err error) {
	return 3, f.change(ctx, "Reapply", func() error { return nil })
}

func (f *fakeAPI) Diagnose(ctx context.Context) ([]finding.Finding, error) {
	return []finding.Finding{{ID: finding.ForwardingOff, Network: "lab", Summary: "forwarding is off\x00", Remedy: "reapply"}},
		f.change(ctx, "Diagnose", func() error { return nil })
}

func (f *fakeAPI) InstallZones(ctx context.Context, force bool) ([]string, error) {
	return []string{"libvirt"}, f.change(ctx, fmt.Sprintf("InstallZones force=%v", force), func() error { return nil })
}

func (f *fakeAPI) RemoveZones(ctx context.Context, o zones.Removal) ([]string, error) {
	return nil, f.change(ctx, fmt.Sprintf("RemoveZones force=%v unbind=%v", o.Force, o.Unbind), func() error { return nil })
}

func (f *fakeAPI) BindInterface(ctx context.Context, iface, zone string, _ service.Expect) (string, error) {
	return "libvirt", f.change(ctx, fmt.Sprintf("BindInterface %s %q", iface, zone), func() error { return nil })
}

func (f *fakeAPI) UnbindInterface(ctx context.Context, iface string, _ service.Expect) error {
	return f.change(ctx, "UnbindInterface "+iface, func() error { return nil })
}

// logBuffer keeps what the server logs; a test that expects log lines calls
// expect.
type logBuffer struct {
	mu       sync.Mutex
	text     bytes.Buffer
	expected bool
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBuffer) expect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected = true
}

func (l *logBuffer) unexpected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expected {
		return false
	}
	for line := range strings.Lines(l.text.String()) {
		if !strings.Contains(line, `level=INFO msg="denied a call"`) {
			return true
		}
	}
	return false
}
