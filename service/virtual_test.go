package service_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
)

// rig is an in-memory service in virtual time: waiting takes no real time.
type rig struct {
	*servicetest.World
	*servicetest.Memory
	t *testing.T
}

// virtual runs a test in virtual time, on a host with bridges virbr0 and virbr1.
// The service is not running yet; if the test starts it, it is stopped at the end.
func virtual(t *testing.T, f func(r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := servicetest.NewMemory(t)
		m.Links.Bridge("virbr0")
		m.Links.Bridge("virbr1")
		r := &rig{World: servicetest.NewWorld(t, m), Memory: m, t: t}
		f(r)
		if r.Service != nil {
			r.Stop()
		}
	})
}

// pass lets time pass and waits until everything that it causes is done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const (
	natNet = "192.168.122.1/24"
	moment = 200 * time.Millisecond
)

// add adds network "default" on virbr0.
func (r *rig) add(mode string) {
	r.t.Helper()
	r.Must(r.Add(context.Background(), servicetest.NetXML("default", "virbr0", mode, natNet), service.ChangeOptions{}))
	pass(moment)
}

func (r *rig) index(name string) int {
	link, _ := r.Links.LinkByName(name)
	return link.Index
}

func (r *rig) status(name string) service.Status {
	r.t.Helper()
	st, ok := r.Service.NetworkStatus(name)
	if !ok {
		r.t.Fatalf("there is no network %s", name)
	}
	return st
}

// want checks a network's State and StateCode, "" for active.
func (r *rig) want(when string, state service.State, code finding.ID) {
	r.t.Helper()
	if st := r.status("default"); st.State != state || st.StateCode != code {
		r.t.Errorf("%s: the network is %s (%s: %s), want %s (%s)", when, st.State, st.StateCode, st.StateReason, state, code)
	}
}

// wantFinding checks whether Diagnose returns a finding of a kind.
func (r *rig) wantFinding(when string, id finding.ID, want bool) {
	r.t.Helper()
	all, err := r.Service.Diagnose(context.Background())
	r.Must(err)
	if got := slices.ContainsFunc(all, func(f finding.Finding) bool { return f.ID == id }); got != want {
		r.t.Errorf("%s: %s is found: %v, want %v; all are %+v", when, id, got, want, all)
	}
}

// repaired returns the causes of Repaired events since the last call.
func (r *rig) repaired() (causes []string) {
	for _, e := range r.Events() {
		if e, ok := e.(service.Repaired); ok {
			causes = append(causes, e.Cause)
		}
	}
	return causes
}

// holds reports whether the kernel holds something.
func (r *rig) holds(part string) bool {
	return slices.ContainsFunc(r.Kernel.Lines(), func(l string) bool { return strings.Contains(l, part) })
}

func (r *rig) wantZone(when, iface, zone string) {
	r.t.Helper()
	if got := r.Firewalld.Bound()[iface]; got != zone {
		r.t.Errorf("%s: %s is in zone %q, want %q", when, iface, got, zone)
	}
}

// wantKind checks the kind of an error.
func wantKind(t *testing.T, when string, err error, want service.Kind) {
	t.Helper()
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Errorf("%s: %v, want %s", when, err, want)
	}
}
