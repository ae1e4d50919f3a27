// Package servicetest provides what tests of package service need: an in-memory
// kernel, firewalld and host that refuse what the real ones refuse, and faults
// that make one step of a call fail, or kill the service at it.
package servicetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// ErrInjected is in the chain of every failure that Faults inject.
var ErrInjected = errors.New("injected failure")

// Faults make one of a call's steps fail. The zero value makes none fail.
type Faults struct {
	mu    sync.Mutex
	at    int  // which step; 0 for none
	after bool // it is done all the same: its answer is lost
	dead  bool // all later steps fail too, as if the service was killed
	steps []string
	// stuck is not nil while firewalld does not answer: a counted binding waits
	// for the result sent here, and meanwhile no other call waits for firewalld.
	stuck chan error
	waits bool // a binding waits at stuck
}

type faultKey struct{}

// Mark returns a context whose steps are counted. Steps under other contexts are
// the service's own, in the background.
func (f *Faults) Mark(ctx context.Context) context.Context {
	return context.WithValue(ctx, faultKey{}, f)
}

// Arm makes a step fail, counted from 1, either before or after it is done.
func (f *Faults) Arm(at int, after bool) { f.arm(at, after, false) }

func (f *Faults) arm(at int, after, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.after, f.dead, f.steps = at, after, dead, nil
}

// ArmKill makes a step and all later ones fail, those that undo included.
func (f *Faults) ArmKill(at int) { f.arm(at, false, true) }

// Disarm ends that and returns the steps since Arm or ArmKill.
func (f *Faults) Disarm() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.dead = 0, false
	return f.steps
}

// Stick makes firewalld leave the next counted binding unanswered until its
// result is sent to the returned channel.
func (f *Faults) Stick() chan<- error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck = make(chan error)
	return f.stuck
}

// Waiting reports whether a call waits for a stuck firewalld.
func (f *Faults) Waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waits
}

// wait waits until a stuck firewalld answers.
func (f *Faults) wait(ctx context.Context) error {
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

// in runs a step, which is counted if the context is marked.
func (f *Faults) in(ctx context.Context, name string, do func() error) error {
	if ctx.Value(faultKey{}) == f {
		return f.step(name, true, do)
	}
	if f.ended() {
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	return do()
}

// ended reports whether the service was killed: then its background work ends too.
func (f *Faults) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead && len(f.steps) >= f.at
}

// step runs a step. If its answer cannot be lost, it fails before it is done.
func (f *Faults) step(name string, canBeLost bool, do func() error) error {
	f.mu.Lock()
	if f.at == 0 {
		f.mu.Unlock()
		return do()
	}
	f.steps = append(f.steps, name)
	fail, after := len(f.steps) == f.at || f.dead && len(f.steps) > f.at, f.after
	f.mu.Unlock()
	if fail && (!after || !canBeLost) {
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	if err := do(); err != nil || !fail {
		return err
	}
	return fmt.Errorf("%s: %w after it was done", name, ErrInjected)
}

// killed reports whether the service counts as killed, or is about to.
func (f *Faults) killed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// faultyBackend is a backend whose steps can fail. Their names end in suffix.
type faultyBackend struct {
	backend.Backend
	f      *Faults
	suffix string
}

func (b faultyBackend) Apply(ctx context.Context, c backend.Change) error {
	return b.f.in(ctx, "Apply"+b.suffix, func() error { return b.Backend.Apply(ctx, c) })
}

func (b faultyBackend) Sync(ctx context.Context, all []backend.Member) (damaged []string, err error) {
	err = b.f.in(ctx, "Sync"+b.suffix, func() error { damaged, err = b.Backend.Sync(ctx, all); return err })
	return damaged, err
}

func (b faultyBackend) RemoveAll(ctx context.Context) error {
	return b.f.in(ctx, "Vacate"+b.suffix, func() error { return b.Backend.RemoveAll(ctx) })
}

func (b faultyBackend) Counters(ctx context.Context) (out map[string]ruleset.Counters, err error) {
	err = b.f.in(ctx, "Counters"+b.suffix, func() error { out, err = b.Backend.Counters(ctx); return err })
	return out, err
}

// links is service.Links under a name that differs from its methods'.
type links = service.Links

// faultyLinks are links whose queries can fail.
type faultyLinks struct {
	links
	f *Faults
}

func (l faultyLinks) Query(name string) (link watch.Link, ok bool, err error) {
	err = l.f.step("Query", false, func() error { link, ok, err = l.links.Query(name); return err })
	return link, ok, err
}

// faultyZones is a firewalld whose answers can be lost or late.
type faultyZones struct {
	binding.Zones
	f *Faults
}

func (z faultyZones) Installed(ctx context.Context) (out zones.Installed, err error) {
	err = z.f.in(ctx, "Installed", func() error { out, err = z.Zones.Installed(ctx); return err })
	return out, err
}

func (z faultyZones) Interfaces(ctx context.Context) (out map[string]string, err error) {
	err = z.f.in(ctx, "Interfaces", func() error { out, err = z.Zones.Interfaces(ctx); return err })
	return out, err
}

func (z faultyZones) Unanswered() time.Duration {
	if z.f.Waiting() {
		return time.Hour
	}
	return z.Zones.Unanswered()
}

func (z faultyZones) BindAll(ctx context.Context, bindings []zones.Binding) (errs []error) {
	if err := z.f.wait(ctx); err != nil {
		return slices.Repeat([]error{err}, len(bindings))
	}
	err := z.f.in(ctx, "Bind", func() error {
		errs = z.Zones.BindAll(ctx, bindings)
		return errors.Join(errs...)
	})
	if errors.Is(err, ErrInjected) {
		errs = slices.Repeat([]error{err}, len(bindings))
	}
	return errs
}

func (z faultyZones) Unbind(ctx context.Context, zone, iface string) error {
	return z.f.in(ctx, "Unbind", func() error { return z.Zones.Unbind(ctx, zone, iface) })
}

// faultyFiles cannot lose answers: the store undoes failed changes itself, and has
// its own tests for that.
type faultyFiles struct {
	*store.Store
	f *Faults
}

func (s faultyFiles) Read() (out store.State, broken []store.FileError, err error) {
	err = s.f.step("Read", false, func() error { out, broken, err = s.Store.Read(); return err })
	return out, broken, err
}

func (s faultyFiles) Put(name string, doc []byte, persistent bool) (undo func() error, err error) {
	err = s.f.step("Put", false, func() error { undo, err = s.Store.Put(name, doc, persistent); return err })
	return s.undo(undo), err
}

func (s faultyFiles) Remove(name string, persistent bool) (undo func() error, err error) {
	err = s.f.step("Remove", false, func() error { undo, err = s.Store.Remove(name, persistent); return err })
	return s.undo(undo), err
}

func (s faultyFiles) ForgetRuntimeChanges(read store.State) (undo func() error, err error) {
	err = s.f.step("ForgetRuntimeChanges", false, func() error { undo, err = s.Store.ForgetRuntimeChanges(read); return err })
	return s.undo(undo), err
}

// undo is not a step of its own, but fails once the service is killed.
func (s faultyFiles) undo(undo func() error) func() error {
	return func() error {
		if s.f.killed() {
			return ErrInjected
		}
		return undo()
	}
}

// faultySettings are settings whose writes can fail.
type faultySettings struct {
	service.ConfigFiles
	f *Faults
}

func (s faultySettings) StageBackend(value string) (put func() error, drop func(), err error) {
	var write func() error
	err = s.f.step("StageBackend", false, func() error { write, drop, err = s.ConfigFiles.StageBackend(value); return err })
	return func() error { return s.f.step("put", false, write) }, drop, err
}
