package nftables

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// interfaces returns the host as one with interfaces of these indexes, the first of
// them its uplink.
func interfaces(indexes ...int) func() ruleset.Host {
	var h ruleset.Host
	for _, i := range indexes {
		h.Bystanders = append(h.Bystanders, ruleset.Interface{Index: i, Name: fmt.Sprintf("eth%d", i)})
	}
	if len(indexes) > 0 {
		h.Uplink = indexes[0]
	}
	return func() ruleset.Host { return h }
}

// TestBystandersFollowTheHost: each change, also an empty one, brings them in line.
func TestBystandersFollowTheHost(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	b.config.Host = interfaces(50, 51)
	mustApply(t, b, ruleset.Change{})
	if got := list(t, ns); got != "" {
		t.Fatalf("without networks there is a table:\n%s", got)
	}
	mustApply(t, b, ruleset.Change{Set: parts(1)})
	expectBystanders(t, ns, 50, 50, 51)
	b.config.Host = interfaces(52, 51)
	mustApply(t, b, ruleset.Change{})
	expectBystanders(t, ns, 52, 51, 52)
	if damaged, err := b.Verify(context.Background()); err != nil || len(damaged) > 0 {
		t.Errorf("Verify: %v, %v", damaged, err)
	}
	b.config.Host = interfaces(53)
	if got := mustSync(t, b, parts(1)...); got.damaged() {
		t.Errorf("an interface that came is taken for damage: %+v", got)
	}
	expectBystanders(t, ns, 53, 53)
	b.config.Host = interfaces()
	mustApply(t, b, ruleset.Change{Set: parts(2)})
	expectBystanders(t, ns, 0)
}

// TestNoBystanderIsANetworks: what has the name or the index of a network's bridge
// leaves the set with the change that adds the network, and comes back with its
// removal.
func TestNoBystanderIsANetworks(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	host := interfaces(50, 1001, 52)()
	host.Bystanders[2].Name = "vb2"
	b.config.Host = func() ruleset.Host { return host }
	mustApply(t, b, ruleset.Change{Set: parts(1)})
	expectBystanders(t, ns, 50, 50, 52, 1001)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	expectBystanders(t, ns, 50, 50)
	mustApply(t, b, ruleset.Change{Remove: []string{"n1"}})
	expectBystanders(t, ns, 50, 50, 1001)
	host.Uplink = 52
	mustApply(t, b, ruleset.Change{})
	expectBystanders(t, ns, 0, 50, 1001)
}

// TestStrangersAreNoBystanders: an interface that another program made a bystander
// meets no network's rules; it is found and goes.
func TestStrangersAreNoBystanders(t *testing.T) {
	for _, damage := range []string{
		"add element " + table + " bystanders_id { 1000 }",
		"insert rule " + table + " forward_guests iif 1000 accept",
		"flush set " + table + " bystanders_id; add element " + table + " bystanders_id { 1000 }",
	} {
		ns := newNamespace(t)
		b := open(t, ns, unowned)
		b.config.Host = interfaces(50)
		mustSync(t, b, parts(2)...)
		run(t, ns, "nft", damage)
		damaged, err := b.Verify(context.Background())
		if diff := cmp.Diff([]string{"n0", "n1"}, damaged); err != nil || diff != "" {
			t.Errorf("%s: Verify, %v, want (-) and got (+):\n%s", damage, err, diff)
		}
		if got := mustSync(t, b, parts(2)...); !got.Skeleton {
			t.Errorf("%s: Sync finds %+v, want the skeleton damaged", damage, got)
		}
		expectBystanders(t, ns, 50, 50)
		if got := mustSync(t, b, parts(2)...); got.damaged() {
			t.Errorf("%s: a second look finds %+v", damage, got)
		}
	}
}

// TestBystandersHaveALimit: more than the set takes are left out, and nothing fails.
func TestBystandersHaveALimit(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	var many []int
	for i := range ruleset.MostBystanders + 100 {
		many = append(many, 5000+i)
	}
	b.config.Host = interfaces(many...)
	mustSync(t, b, parts(2)...)
	expectBystanders(t, ns, 5000, many[:ruleset.MostBystanders]...)
	// The set is full, and others take the places of those that go.
	b.config.Host = interfaces(many[50:]...)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(2, true)}})
	expectBystanders(t, ns, 5050, many[50:50+ruleset.MostBystanders]...)
}

// expectBystanders compares the kernel's set and its rules for the uplink; 0 is none.
func expectBystanders(t *testing.T, ns int, uplink int, want ...int) {
	t.Helper()
	var fields []string
	_, elements, _ := strings.Cut(run(t, ns, "nft", "-n", "list", "set", "inet", ruleset.TableName, ruleset.SetBystandersID), "elements = {")
	elements, _, _ = strings.Cut(elements, "}")
	fields = append(fields, strings.FieldsFunc(elements, func(r rune) bool { return !('0' <= r && r <= '9') })...)
	var wanted []string
	for _, w := range want {
		wanted = append(wanted, fmt.Sprint(w))
	}
	slices.Sort(fields)
	slices.Sort(wanted)
	if diff := cmp.Diff(wanted, fields); diff != "" {
		t.Errorf("bystanders, want (-) and got (+):\n%s", diff)
	}
	rules := run(t, ns, "nft", "-n", "list", "chain", "inet", ruleset.TableName, ruleset.ChainForward)
	rule := fmt.Sprintf("oif %d goto to_uplink", uplink)
	if got := strings.Contains(rules, rule); got != (uplink != 0) || strings.Count(rules, "goto to_uplink") > 1 {
		t.Errorf("want %q for the uplink in:\n%s", rule, rules)
	}
}
