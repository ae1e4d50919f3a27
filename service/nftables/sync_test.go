package nftables

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

const table = "inet " + ruleset.TableName

func unowned(c *Config) { c.Owned = false }

// damage is what another program does to a table that is not owned.
var damages = map[string]struct {
	commands string
	want     syncReport
	verify   []string
}{
	"nothing": {},
	"a rule is deleted": {
		"flush chain " + table + " net_n1_to", syncReport{Repaired: []string{"n1"}}, []string{"n1"},
	},
	"a rule is added": {
		"add rule " + table + " net_n2_from accept", syncReport{Repaired: []string{"n2"}}, []string{"n2"},
	},
	"a rule takes another's place": {
		"flush chain " + table + " net_n2_to; add rule " + table + ` net_n2_to ip daddr 10.0.2.0/24 accept comment "n2: replies"; add rule ` +
			table + ` net_n2_to goto refuse comment "n2: nothing else gets in"`,
		syncReport{Repaired: []string{"n2"}}, []string{"n2"},
	},
	"elements are deleted": {
		"flush map " + table + " from_name", syncReport{Repaired: []string{"n0", "n1", "n2"}}, []string{"n0", "n1", "n2"},
	},
	"a verdict is changed": {
		"delete element " + table + " to_name { vb1 }; add element " + table + " to_name { vb1 : goto net_n2_to }",
		syncReport{Repaired: []string{"n1"}}, []string{"n1"},
	},
	"a verdict lets all pass": {
		"delete element " + table + " to_name { vb1 }; add element " + table + " to_name { vb1 : accept }",
		syncReport{Repaired: []string{"n1"}}, []string{"n1"},
	},
	"chains and elements of nobody": {
		"add chain " + table + " stranger; add rule " + table + " stranger goto net_n1_to; add element " + table + " to_name { vb9 : goto stranger }",
		syncReport{Leftovers: 2}, nil,
	},
	"a base chain of nobody": {
		"add chain " + table + " stranger { type filter hook input priority 0; policy drop; }", syncReport{Skeleton: true, Leftovers: 1}, []string{"n0", "n1", "n2"},
	},
	"sets and counters of nobody": {
		"add set " + table + " stranger { type ipv4_addr; elements = { 192.0.2.1 } }; add counter " + table + " stranger; add chain " + table +
			" uses; add rule " + table + " uses ip saddr @stranger counter name stranger; add rule " + table + " uses ip saddr { 192.0.2.2, 192.0.2.3 } drop",
		syncReport{Leftovers: 3}, nil,
	},
	"a stranger's chain leads to ours and back": {
		"add chain " + table + " one; add chain " + table + " two; add rule " + table + " one goto two; add rule " + table +
			" two goto net_n1_to; flush chain " + table + " net_n1_from; add rule " + table + " net_n1_from goto one",
		syncReport{Repaired: []string{"n1"}, Leftovers: 2}, []string{"n1"},
	},
	"a base chain has a network's name": {
		"flush map " + table + " to_id; flush map " + table + " to_name; delete chain " + table + " net_n1_to; add chain " + table +
			" net_n1_to { type filter hook input priority 0; policy accept; }",
		syncReport{Rebuilt: true}, []string{"n0", "n1", "n2"},
	},
	"a base chain is emptied": {
		"flush chain " + table + " forward_guests", syncReport{Skeleton: true}, []string{"n0", "n1", "n2"},
	},
	"a base chain lets pass first": {
		"insert rule " + table + " forward_guests accept", syncReport{Skeleton: true}, []string{"n0", "n1", "n2"},
	},
	"a policy is drop": {
		"add chain " + table + " forward_guests { type filter hook forward priority filter - 1; policy drop; }", syncReport{Skeleton: true}, []string{"n0", "n1", "n2"},
	},
	"the refusal refuses no more": {
		"flush chain " + table + " refuse", syncReport{Skeleton: true}, []string{"n0", "n1", "n2"},
	},
	"a chain of all networks and its maps are gone": {
		"flush chain " + table + " forward_guests; flush chain " + table + " to_uplink; flush chain " + table + " source; delete chain " + table + " source; " +
			"flush chain " + table + " source_id; flush chain " + table + " source_name; delete map " + table + " from_id; delete map " + table + " from_name",
		syncReport{Skeleton: true, Repaired: []string{"n0", "n1", "n2"}}, []string{"n0", "n1", "n2"},
	},
	"a base chain has another priority": {
		"flush chain " + table + " forward_guests; delete chain " + table + " forward_guests; add chain " + table + " forward_guests { type filter hook forward priority -300; }",
		syncReport{Rebuilt: true}, []string{"n0", "n1", "n2"},
	},
	"a map has another key": {
		"flush chain " + table + " nat_guests; delete map " + table + " nat_id; add map " + table + " nat_id { type ipv4_addr : verdict; }",
		syncReport{Rebuilt: true}, []string{"n0", "n1", "n2"},
	},
	"a stranger's base chain drops all": {
		"add chain " + table + " evil { type filter hook forward priority -5; policy drop; }", syncReport{Skeleton: true, Leftovers: 1}, []string{"n0", "n1", "n2"},
	},
	"objects of all kinds": {
		"add quota " + table + " q { 1 bytes; }; add limit " + table + " l { rate 1/second; }; add counter " + table + " c; add set " + table +
			" s { type inet_service; elements = { 1 }; }; add ct timeout " + table + " t { protocol tcp; policy = { established: 1 }; }; " +
			"add rule " + table + " forward_guests quota name q drop",
		syncReport{Skeleton: true, Leftovers: 5}, []string{"n0", "n1", "n2"},
	},
	"an element for everything else": {
		"add element " + table + " from_id { * : drop }", syncReport{Rebuilt: true}, []string{"n0", "n1", "n2"},
	},
	"an element that drops": {
		"delete element " + table + " from_name { vb1 }; add element " + table + " from_name { vb1 : drop }",
		syncReport{Repaired: []string{"n1"}}, []string{"n1"},
	},
	"the table is gone": {
		"delete table " + table, syncReport{TableMissing: true}, []string{"n0", "n1", "n2"},
	},
	"the table is emptied": {
		"flush table " + table, syncReport{Skeleton: true, Repaired: []string{"n0", "n1", "n2"}}, []string{"n0", "n1", "n2"},
	},
}

// TestDamageIsFoundAndRepaired damages the table of a backend that does not own
// it.
func TestDamageIsFoundAndRepaired(t *testing.T) {
	for name, tt := range damages {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			b := open(t, ns, unowned)
			mustSync(t, b, parts(3)...)
			if tt.commands != "" {
				run(t, ns, "nft", tt.commands)
			}
			before := list(t, ns)
			damaged, err := b.Verify(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.verify, damaged); diff != "" {
				t.Errorf("Verify, want (-) and got (+):\n%s", diff)
			}
			if list(t, ns) != before {
				t.Error("Verify changed something")
			}
			if diff := cmp.Diff(tt.want, mustSync(t, b, parts(3)...)); diff != "" {
				t.Errorf("Sync, want (-) and got (+):\n%s", diff)
			}
			expectTable(t, ns, parts(3)...)
			if got := mustSync(t, b, parts(3)...); got.damaged() {
				t.Errorf("a second look finds %+v", got)
			}
			mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(1)}, Remove: []string{"n2"}})
			expectTable(t, ns, part(0, true), changed(1))
		})
	}
}

// TestTakeover: the next process finds the table that persisted, as it was or
// changed by another program.
func TestTakeover(t *testing.T) {
	for name, tt := range damages {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			first := open(t, ns)
			mustSync(t, first, parts(3)...)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.commands != "" {
				run(t, ns, "nft", tt.commands)
			}
			b := open(t, ns)
			if diff := cmp.Diff(tt.want, mustSync(t, b, parts(3)...)); diff != "" {
				t.Errorf("Sync, want (-) and got (+):\n%s", diff)
			}
			expectTable(t, ns, parts(3)...)
			if !b.Owned() {
				t.Error("the table is not owned")
			}
			expectProtected(t, ns)
		})
	}
}

// expectProtected tries to change the table as another process.
func expectProtected(t *testing.T, ns int) {
	t.Helper()
	before := list(t, ns)
	for _, command := range []string{"add chain " + table + " foreign", "delete table " + table, "add rule " + table + " refuse accept"} {
		out, err := in(ns, "nft", command).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Operation not permitted") {
			t.Errorf("%s: %v %s, want EPERM", command, err, out)
		}
	}
	run(t, ns, "nft", "flush", "ruleset")
	if diff := cmp.Diff(before, list(t, ns)); diff != "" {
		t.Errorf("the table was changed by another process:\n%s", diff)
	}
}

func TestTakeoverBringsTheNetworksOfNow(t *testing.T) {
	ns := newNamespace(t)
	first := open(t, ns)
	mustSync(t, first, parts(4)...)
	mustApply(t, first, ruleset.Change{Set: []ruleset.Part{changed(2)}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, ns)
	report := mustSync(t, b, changed(0), moved(1), changed(2), part(7, true))
	want := syncReport{Repaired: []string{"n0", "n1", "n7"}, Leftovers: 3 + 4 + 10 + 5}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("want (-) and got (+):\n%s", diff)
	}
	expectTable(t, ns, changed(0), moved(1), changed(2), part(7, true))
}

func TestTakeoverKeepsTotals(t *testing.T) {
	ns := newNamespace(t)
	totals := ruleset.Counters{FromGuestPackets: 10, FromGuestBytes: 2000, RejectedToGuestPackets: 7}
	first := open(t, ns, func(c *Config) { c.StartValues = func(string) ruleset.Counters { return totals } })
	mustSync(t, first, parts(2)...)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]ruleset.Counters{"n0": totals, "n1": totals}
	for _, commands := range []string{
		"flush chain " + table + " net_n1_to",
		// Another priority needs a new table, whose counters are carried over.
		"flush chain " + table + " forward_guests; delete chain " + table + " forward_guests; add chain " + table + " forward_guests { type filter hook forward priority -300; }",
	} {
		run(t, ns, "nft", commands)
		b := open(t, ns)
		mustSync(t, b, parts(2)...)
		got, err := b.Counters(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %q: want (-) and got (+):\n%s", commands, diff)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATableFromEarlierIsNotChangedBlindly(t *testing.T) {
	ns := newNamespace(t)
	first := open(t, ns)
	mustSync(t, first, parts(2)...)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, ns)
	if err := b.applyParts(t.Context(), ruleset.Change{Set: parts(1)}); err == nil {
		t.Error("a change went ahead without a look at the table")
	}
	expectTable(t, ns, parts(2)...)
	mustSync(t, b, parts(2)...)
	mustApply(t, b, ruleset.Change{Remove: []string{"n1"}})
	expectTable(t, ns, parts(1)...)
}

func TestSyncWithoutNetworksDeletesTheTable(t *testing.T) {
	ns := newNamespace(t)
	first := open(t, ns)
	mustSync(t, first, parts(2)...)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustSync(t, open(t, ns))
	if got := run(t, ns, "nft", "list", "ruleset"); got != "" {
		t.Errorf("there is still:\n%s", got)
	}
}

func TestASecondProcessIsToldWhy(t *testing.T) {
	ns := newNamespace(t)
	mustSync(t, open(t, ns), parts(1)...)
	other := open(t, ns)
	_, err := other.syncParts(context.Background(), parts(1))
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "belongs to another process") {
		t.Errorf("error %v, want EPERM with its reason", err)
	}
	if got, err := other.Counters(context.Background()); err != nil {
		t.Errorf("reading fails too: %v %v", got, err)
	}
	expectTable(t, ns, parts(1)...)
}

// TestOwnershipChanges: own_table is switched between two runs of the service.
func TestOwnershipChanges(t *testing.T) {
	for _, before := range []bool{true, false} {
		ns := newNamespace(t)
		first := open(t, ns, func(c *Config) { c.Owned = before })
		mustSync(t, first, parts(2)...)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		b := open(t, ns, func(c *Config) { c.Owned = !before })
		mustSync(t, b, parts(2)...)
		mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(1)}})
		expectTable(t, ns, part(0, true), changed(1))
		mustApply(t, b, ruleset.Change{Remove: []string{"n0", "n1"}})
		mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(0, true)}})
		if b.Owned() == before {
			t.Errorf("from owned %v: a new table is still %v", before, b.Owned())
		}
		if !before {
			expectProtected(t, ns)
		}
	}
}

// TestApplyRecoversFromAForeignFlush: the flush need not have been noticed yet.
func TestApplyRecoversFromAForeignFlush(t *testing.T) {
	changes := map[string]struct {
		change ruleset.Change
		want   []ruleset.Part
	}{
		"add":     {ruleset.Change{Set: []ruleset.Part{part(9, true)}}, []ruleset.Part{part(0, true), part(1, true), part(9, true)}},
		"replace": {ruleset.Change{Set: []ruleset.Part{changed(1)}}, []ruleset.Part{part(0, true), changed(1)}},
		"remove":  {ruleset.Change{Remove: []string{"n0"}}, []ruleset.Part{part(1, true)}},
	}
	for name, tt := range changes {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			totals := ruleset.Counters{ToGuestBytes: 99}
			b := open(t, ns, unowned, func(c *Config) { c.StartValues = func(string) ruleset.Counters { return totals } })
			mustSync(t, b, parts(2)...)
			run(t, ns, "nft", "flush", "ruleset")
			mustApply(t, b, tt.change)
			got, err := b.Counters(context.Background())
			if err != nil || got["n1"] != totals {
				t.Errorf("totals of n1 are %v (%v), want %v", got["n1"], err, totals)
			}
			// The listing of a fresh table has counters at zero.
			for network := range got {
				if err := b.ResetCounters(context.Background(), network); err != nil {
					t.Fatal(err)
				}
			}
			expectTable(t, ns, tt.want...)
		})
	}
}

func TestManyNetworksGoInSlices(t *testing.T) {
	ns := newNamespace(t)
	first := open(t, ns)
	before := generation(t, first)
	mustSync(t, first, parts(3*syncBatch+1)...)
	if got := generation(t, first) - before; got < 4 {
		t.Errorf("%d networks came in %d transactions, want 4 at least", 3*syncBatch+1, got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, ns)
	var other []ruleset.Part
	for n := range 3 * syncBatch {
		other = append(other, changed(n))
	}
	report := mustSync(t, b, other...)
	if len(report.Repaired) != 3*syncBatch || report.Rebuilt || report.TableMissing {
		t.Errorf("repaired %d networks: %+v", len(report.Repaired), report)
	}
	expectTable(t, ns, other...)
}
