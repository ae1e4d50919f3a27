package nftables

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

func TestCountersSurviveReplacement(t *testing.T) {
	ns := newNamespace(t)
	start := ruleset.Counters{
		FromGuestPackets: 1, FromGuestBytes: 2, ToGuestPackets: 3, ToGuestBytes: 4,
		RejectedFromGuestPackets: 5, RejectedToGuestPackets: 6,
	}
	b := open(t, ns, func(c *Config) {
		c.StartValues = func(network string) ruleset.Counters {
			if network == "n1" {
				return start
			}
			return ruleset.Counters{}
		}
	})
	expect := func(want map[string]ruleset.Counters) {
		t.Helper()
		got, err := b.Counters(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	expect(map[string]ruleset.Counters{})
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	expect(map[string]ruleset.Counters{"n1": start, "n2": {}})

	start.FromGuestPackets = 100 // no longer asked for: the counters are there
	was := ruleset.Counters{FromGuestPackets: 1, FromGuestBytes: 2, ToGuestPackets: 3, ToGuestBytes: 4, RejectedFromGuestPackets: 5, RejectedToGuestPackets: 6}
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(1), changed(2)}})
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{moved(1)}, Remove: []string{"n2"}})
	expect(map[string]ruleset.Counters{"n1": was})

	if err := b.ResetCounters(context.Background(), "n1"); err != nil {
		t.Fatal(err)
	}
	expect(map[string]ruleset.Counters{"n1": {}})
	if err := b.ResetCounters(context.Background(), "unknown"); err != nil {
		t.Error(err)
	}

	fewer := changed(1)
	fewer.Counters = []string{fewer.Counters[0]}
	for i := range fewer.Chains {
		for j, r := range fewer.Chains[i].Rules {
			if r.Counter != fewer.Counters[0] {
				fewer.Chains[i].Rules[j].Counter = ""
			}
		}
	}
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{fewer}})
	expectTable(t, ns, fewer)
}

// TestNetworksNamedLikeCounters: the counter that lets guests of "rejected"
// out is not the one that refuses those of "".
func TestNetworksNamedLikeCounters(t *testing.T) {
	names := ruleset.NamesOf("rejected")
	b := &Backend{config: Config{StartValues: func(string) ruleset.Counters { return ruleset.Counters{FromGuestBytes: 7} }}}
	got, _ := b.starting("rejected")
	if len(got) != 1 || got[0].name != names.Earlier(ruleset.CountsFrom) || got[0].bytes != 7 {
		t.Errorf("the counters begin at %+v, want 7 bytes in %s", got, names.Earlier(ruleset.CountsFrom))
	}
}
