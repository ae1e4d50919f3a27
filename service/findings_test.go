package service

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func TestSourcesReplaceTheirOwnFindings(t *testing.T) {
	var events []Event
	s := New("test", Deps{Log: slog.New(slog.DiscardHandler), Notify: func(e Event) { events = append(events, e) }})
	s.loader.adopt(managed{net: network.Network{Name: "lab", Bridge: "virbr0"}, bridge: bridge{index: 7, name: "virbr0"}}.compiled())
	wantIDs := func(what string, news int, want ...finding.ID) {
		t.Helper()
		fs, err := s.Diagnose(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []finding.ID
		for _, f := range fs {
			got = append(got, f.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		told := 0
		for _, e := range events {
			if _, ok := e.(FindingsChanged); ok {
				told++
			}
		}
		if told != news {
			t.Errorf("%s: FindingsChanged came %d times, want %d", what, told, news)
		}
		events = nil
	}
	off := finding.Finding{ID: finding.ForwardingOff, Summary: "it is off"}
	s.networks.note("lab", fromForwarding, off)
	wantIDs("one source", 1, finding.ForwardingOff)
	s.networks.note("lab", fromForwarding, off)
	wantIDs("the same again", 0, finding.ForwardingOff)
	s.networks.noteHost(fromFile, finding.Finding{ID: finding.FileNeverUsable})
	wantIDs("the host", 1, finding.ForwardingOff, finding.FileNeverUsable)
	if st, _ := s.NetworkStatus("lab"); st.State != StateDegraded || st.StateCode != finding.ForwardingOff || st.StateReason != "it is off" {
		t.Errorf("State is %s, %s, %q", st.State, st.StateCode, st.StateReason)
	}
	s.networks.note("lab", fromForwarding)
	s.networks.noteHost(fromFile)
	wantIDs("all gone", 2)
	if st, _ := s.NetworkStatus("lab"); st.State != StateActive || st.StateCode != "" {
		t.Errorf("State is %s, %s", st.State, st.StateCode)
	}
}
