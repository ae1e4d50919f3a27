package nftables

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// TestListIsWhatTheKernelHas after each thing that another program did.
func TestListIsWhatTheKernelHas(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns, unowned)
	mustSync(t, b, parts(3)...)
	listed := func() string {
		t.Helper()
		text, err := b.Text(t.Context(), "n1")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	whole := ruleset.Text(ruleset.SetsOf(ruleset.Base(ruleset.Interface{}), part(1, true)), part(1, true))
	if diff := cmp.Diff(whole, listed()); diff != "" {
		t.Fatalf("printed (-) and listed (+):\n%s", diff)
	}
	changes := map[string]struct{ commands, gone, says string }{
		"a rule more":         {"add rule " + table + " net_n1_from accept", "", "# another program's rule, handle "},
		"a rule first":        {"insert rule " + table + " net_n1_to drop", "", "chain net_n1_to {\n\t\t# another program's rule, handle "},
		"rules gone":          {"flush chain " + table + " net_n1_from", "guests may go out", ""},
		"an element gone":     {"delete element " + table + " to_name { vb1 }", "map to_name", ""},
		"an element changed":  {"delete element " + table + " to_name { vb1 }; add element " + table + " to_name { vb1 : drop }", "map to_name", "# to_name has another program's element for \"vb1\""},
		"the table is asleep": {"add table " + table + " { flags dormant; }", "", "flags dormant"},
	}
	for name, c := range changes {
		run(t, ns, "nft", c.commands)
		got := listed()
		if c.gone != "" && strings.Contains(got, c.gone) || !strings.Contains(got, c.says) {
			t.Errorf("%s: %s", name, got)
		}
		mustSync(t, b, parts(3)...)
		if diff := cmp.Diff(whole, listed()); diff != "" {
			t.Errorf("%s, printed (-) and listed (+):\n%s", name, diff)
		}
	}
	replaceKeepingMark(t, ns, "net_n1_from", 0)
	if got := listed(); strings.Contains(got, "guests may go out") || strings.Count(got, "another program's rule") != 1 {
		t.Errorf("a rule replaced: %s", got)
	}
	run(t, ns, "nft", "delete table "+table)
	if got := listed(); got != "" {
		t.Errorf("without a table: %s", got)
	}
}
