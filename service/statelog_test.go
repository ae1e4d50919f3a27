package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// logged is a log that one goroutine writes and another reads.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// stateRig is a service with networks, whose log can be read.
func stateRig(networks int) (*Service, *logged) {
	var log logged
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "message_id" {
			return slog.Attr{}
		}
		return a
	}
	s := New("test", Deps{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: drop})), Notify: func(Event) {}})
	for i := range networks {
		s.loader.adopt(managed{net: network.Network{Name: fmt.Sprintf("n%d", i), Bridge: fmt.Sprintf("virbr%d", i)}, backend: "nftables", bridge: bridge{index: i + 1}}.compiled())
	}
	return s, &log
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func taken(log *logged) []string {
	log.mu.Lock()
	defer log.mu.Unlock()
	defer log.text.Reset()
	return strings.Split(strings.TrimSpace(log.text.String()), "\n")
}

func off() finding.Finding {
	return finding.Finding{ID: finding.ForwardingOff, Summary: "forwarding is off", Remedy: "reapply"}
}

// TestEachChangeOfStateHasALine, at the priority of its cause.
func TestEachChangeOfStateHasALine(t *testing.T) {
	s, log := stateRig(2)
	s.networks.note("n0", fromForwarding, off())
	s.networks.sumUpStates() // the start ends
	s.networks.note("n1", fromForwarding, off())
	s.networks.note("n1", fromForwarding, finding.Finding{ID: finding.ForwardingOff, Summary: "another reason of the same kind"})
	s.networks.note("n1", fromFile, finding.Finding{ID: finding.FileUnusable, Summary: "line 3 is wrong"})
	s.networks.note("n1", fromFile)
	s.networks.note("n1", fromForwarding)
	want := []string{
		`level=WARN msg="a network is degraded" network=n0 bridge=virbr0 backend=nftables state=degraded state_code=forwarding-off reason="forwarding is off: reapply"`,
		`level=WARN msg="a network is degraded" network=n1 bridge=virbr1 backend=nftables state=degraded state_code=forwarding-off reason="forwarding is off: reapply"`,
		`level=ERROR msg="a network is degraded" network=n1 bridge=virbr1 backend=nftables state=degraded state_code=file-unusable reason="line 3 is wrong"`,
		`level=WARN msg="a network is degraded" network=n1 bridge=virbr1 backend=nftables state=degraded state_code=forwarding-off reason="another reason of the same kind"`,
		`level=INFO msg="a network is active" network=n1 bridge=virbr1 backend=nftables state=active`,
	}
	got := taken(log)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestManyAlikeShareALine: a start with 1,000 networks that wait does not write
// 1,000 lines.
func TestManyAlikeShareALine(t *testing.T) {
	s, log := stateRig(1000)
	for i := range 1000 {
		s.networks.note(fmt.Sprintf("n%d", i), fromForwarding, off())
	}
	s.networks.sumUpStates()
	got := taken(log)
	if len(got) != 1 || !strings.HasPrefix(got[0], `level=WARN msg="networks are degraded" count=1000 state=degraded state_code=forwarding-off `) || !strings.Contains(got[0], "n999") {
		t.Errorf("%d lines: %.300s", len(got), got)
	}
}

// TestFlappingIsSummedUp: a network that changes all the time writes a few lines,
// the last one with its State.
func TestFlappingIsSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := stateRig(1)
		s.networks.sumUpStates()
		s.loops.Go(func() { s.workers.states.run(t.Context()) })
		for range 50 {
			s.networks.note("n0", fromForwarding, off())
			s.networks.note("n0", fromForwarding)
		}
		synctest.Wait()
		if got := taken(log); len(got) != flapLines {
			t.Errorf("%d lines at once", len(got))
		}
		time.Sleep(flapWindow + time.Second)
		synctest.Wait()
		want := `level=INFO msg="a network's state changed further times, and is active" network=n0 bridge=virbr0 backend=nftables changes=90 state=active`
		if got := taken(log); len(got) != 1 || got[0] != want {
			t.Errorf("after the window: %q", got)
		}
		s.networks.note("n0", fromForwarding, off())
		if got := taken(log); len(got) != 1 || !strings.Contains(got[0], "a network is degraded") {
			t.Errorf("later: %q", got)
		}
	})
	// The loop ended with the test's context.
}

// TestAddedSaysItsState: one log line reports an added network and its State.
func TestAddedSaysItsState(t *testing.T) {
	s, log := stateRig(0)
	s.networks.sumUpStates()
	waits := managed{net: network.Network{Name: "lab", Bridge: "virbr0"}, backend: "nftables"}.compiled()
	s.networks.report(transition{next: waits}, "AddNetwork")
	if got := log.String(); !strings.HasPrefix(got, `level=INFO msg="added a network" network=lab bridge=virbr0 backend=nftables cause=AddNetwork state=waiting state_code=bridge-missing reason=`) {
		t.Error(got)
	}
}
