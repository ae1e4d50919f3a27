package tests

import (
	"context"
	"maps"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Sync and Vacate are steps of a move, which can fail.
func (r faultyRules) Sync(ctx context.Context, all []service.Member) (damaged []string, err error) {
	err = r.in(ctx, "Sync", func() error { damaged, err = r.NFTables.Sync(ctx, all); return err })
	return damaged, err
}

func (r faultyRules) Vacate(ctx context.Context) error {
	return r.in(ctx, "Vacate", func() error { return r.NFTables.Vacate(ctx) })
}

// otherKernel is what stands for iptables in a world: its programs would run in
// the network namespace of the test. It lasts as long as the world, as a kernel
// does.
type otherKernel struct {
	mu   sync.Mutex
	held map[string]int // index of the bridge by network
}

func (k *otherKernel) lines() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.held)
}

// otherRules is the backend that holds its rules there.
type otherRules struct {
	*otherKernel
	*faults
}

func (otherRules) Name() string { return choice.IPTables }

func (r otherRules) change(f func(held map[string]int)) error {
	r.otherKernel.mu.Lock()
	defer r.otherKernel.mu.Unlock()
	f(r.held)
	return nil
}

func (r otherRules) Apply(ctx context.Context, c service.Change) error {
	return r.in(ctx, "Apply to the other", func() error {
		return r.change(func(held map[string]int) {
			for _, m := range c.Set {
				held[m.Network.Name] = m.Index
			}
			for _, name := range c.Remove {
				delete(held, name)
			}
		})
	})
}

func (r otherRules) Sync(ctx context.Context, all []service.Member) (damaged []string, err error) {
	err = r.in(ctx, "Sync the other", func() error {
		return r.change(func(held map[string]int) {
			before := maps.Clone(held)
			clear(held)
			for _, m := range all {
				held[m.Network.Name] = m.Index
				if _, was := before[m.Network.Name]; !was {
					damaged = append(damaged, m.Network.Name)
				}
			}
		})
	})
	return damaged, err
}

func (r otherRules) Vacate(ctx context.Context) error {
	return r.in(ctx, "Vacate the other", func() error { return r.change(func(held map[string]int) { clear(held) }) })
}

func (otherRules) Text(context.Context, string) (string, error) { return "", nil }
func (otherRules) ResetCounters(context.Context, string) error  { return nil }
func (otherRules) Counters(context.Context) (map[string]ruleset.Counters, error) {
	return map[string]ruleset.Counters{}, nil
}

// bothBackends are the backends of a world.
type bothBackends struct {
	rules service.Backend
	other service.Backend
}

func (b bothBackends) Get(name string) service.Backend {
	if name == choice.IPTables {
		return b.other
	}
	return b.rules
}

func (bothBackends) Variant() string { return "" }

func (bothBackends) Available(context.Context, choice.Configured) choice.Available {
	return choice.Available{NFT: true}
}

// faultySettings can fail to write.
type faultySettings struct {
	service.ConfigFiles
	*faults
}

func (s faultySettings) StageBackend(value string) (put func() error, drop func(), err error) {
	var write func() error
	err = s.call("StageBackend", false, func() error { write, drop, err = s.ConfigFiles.StageBackend(value); return err })
	return func() error { return s.call("put", false, write) }, drop, err
}

// moves are calls that change the backend.
func moves() []operation {
	set := func(o service.ChangeOptions) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error { return w.svc.SetBackend(ctx, choice.IPTables, o) }
	}
	return []operation{
		{"move", set(service.ChangeOptions{})},
		{"move for good", set(service.ChangeOptions{Persistent: true})},
		{"stay, for good", func(ctx context.Context, w *world) error {
			return w.svc.SetBackend(ctx, choice.NFTables, service.ChangeOptions{Persistent: true})
		}},
		{"reload to the other", func(ctx context.Context, w *world) error {
			put, _, err := service.ConfigFiles{Dir: w.path("etc")}.StageBackend(choice.IPTables)
			fatal(w.t, err)
			fatal(w.t, put())
			return w.svc.Reload(ctx)
		}},
	}
}
