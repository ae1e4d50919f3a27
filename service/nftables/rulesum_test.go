package nftables

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// TestRulesAreKnownByWhatTheyDo replaces rules one by one with one that accepts
// everything and keeps the service's user data.
func TestRulesAreKnownByWhatTheyDo(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns, unowned)
	mustSync(t, b, parts(2)...)
	for _, c := range append(ruleset.Base(ruleset.Interface{}).Chains, part(1, true).Chains...) {
		for i := range c.Rules {
			replaceKeepingMark(t, ns, c.Name, i)
			report := mustSync(t, b, parts(2)...)
			if want := (syncReport{Repaired: []string{"n1"}}); c.Hook == (ruleset.Hook{}) && c.Name[:4] == "net_" {
				if diff := cmp.Diff(want, report); diff != "" {
					t.Errorf("rule %d of %s, want (-) and got (+):\n%s", i, c.Name, diff)
				}
			} else if !report.Skeleton {
				t.Errorf("rule %d of %s: %+v", i, c.Name, report)
			}
			expectTable(t, ns, parts(2)...)
		}
	}
	if mustSync(t, b, parts(2)...).damaged() {
		t.Error("a table in order is taken for a damaged one")
	}
}

func replaceKeepingMark(t *testing.T, ns int, chain string, number int) {
	t.Helper()
	var rules [][]byte
	var handles []uint64
	r := reader{netNS: ns}
	err := r.read(t.Context(), func(c *nfnl.Conn) error {
		attrs := []netlink.Attribute{nfnl.Named(unix.NFTA_RULE_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_RULE_CHAIN, chain)}
		return c.Dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, attrs, func(body nfnl.Attributes) {
			rules, handles = append(rules, body.Get(unix.NFTA_RULE_USERDATA)), append(handles, body.Uint64(unix.NFTA_RULE_HANDLE))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		t.Fatal(err)
	}
	tab := &nftables.Table{Family: nftables.TableFamilyINet, Name: ruleset.TableName}
	c.ReplaceRule(&nftables.Rule{
		Table: tab, Chain: &nftables.Chain{Table: tab, Name: chain}, Handle: handles[number], UserData: rules[number],
		Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}},
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestADormantTableIsWoken, whether it is ours or an earlier process's.
func TestADormantTableIsWoken(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns, unowned)
	mustSync(t, b, parts(2)...)
	run(t, ns, "nft", "add table "+table+" { flags dormant; }")
	if damaged, err := b.Verify(t.Context()); err != nil || len(damaged) != 2 {
		t.Errorf("Verify: %q, %v", damaged, err)
	}
	for _, next := range []*Backend{b, open(t, ns, unowned), open(t, ns)} {
		run(t, ns, "nft", "add table "+table+" { flags dormant; }")
		if diff := cmp.Diff(syncReport{Dormant: true}, mustSync(t, next, parts(2)...)); diff != "" {
			t.Errorf("want (-) and got (+):\n%s", diff)
		}
		expectTable(t, ns, parts(2)...)
	}
}

// TestTheKernelGivesRulesBackAsSent: all of them, so that none is taken for
// another program's.
func TestTheKernelGivesRulesBackAsSent(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	if err := b.Probe(t.Context()); err != nil || b.reader.userDataOnly {
		t.Fatalf("probing: %v, userDataOnly %v", err, b.reader.userDataOnly)
	}
	all := ruleset.Part{Network: "all", Counters: []string{"net_all_from"}, Chains: []ruleset.Chain{
		{Name: "net_all_from", Rules: everyRule()},
		{Name: "net_all_nat", Rules: everyTranslation()},
		{Name: "net_all_lookup", Rules: everyDispatch()},
	}}
	mustSync(t, b, all)
	if got := mustSync(t, b, all); got.damaged() {
		t.Errorf("a second look finds %+v", got)
	}
}
