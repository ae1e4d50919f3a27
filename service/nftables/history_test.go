package nftables

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// TestAnyHistoryEndsInTheSameTable mixes changes, damage by other programs,
// restarts and lost answers in any order.
func TestAnyHistoryEndsInTheSameTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ns := newNamespace(t)
		own := rapid.Bool().Draw(rt, "owned")
		reopen := func() *Backend { return open(t, ns, func(c *Config) { c.Owned = own }) }
		b := reopen()
		want := map[string]ruleset.Part{}
		all := func() (out []ruleset.Part) {
			for _, name := range slices.Sorted(maps.Keys(want)) {
				out = append(out, want[name])
			}
			return out
		}
		draw := func() ruleset.Part {
			n := rapid.IntRange(0, 3).Draw(rt, "network")
			return rapid.SampledFrom([]func(int) ruleset.Part{func(n int) ruleset.Part { return part(n, true) }, changed, moved}).Draw(rt, "form")(n)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(*rapid.T) {
				p := draw()
				mustApply(t, b, ruleset.Change{Set: []ruleset.Part{p}})
				want[p.Network] = p
			},
			"remove": func(*rapid.T) {
				p := draw()
				mustApply(t, b, ruleset.Change{Remove: []string{p.Network}})
				delete(want, p.Network)
			},
			"restart": func(*rapid.T) {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				b = reopen()
				mustSync(t, b, all()...)
			},
			"foreign hand": func(rt *rapid.T) {
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(damages))).Draw(rt, "damage")
				in(ns, "nft", damages[name].commands).Run() // fails where it does not fit
				mustSync(t, b, all()...)
			},
			"lost answer": func(rt *rapid.T) {
				w := b.wire
				b.wire = &faulty{wire: w, lose: true, reaches: rapid.Bool().Draw(rt, "reaches")}
				b.applyParts(context.Background(), ruleset.Change{Set: []ruleset.Part{draw()}})
				b.wire = w
			},
		})
		mustSync(t, b, all()...)
		if len(want) == 0 {
			if got := list(t, ns); got != "" {
				rt.Fatalf("without networks there is:\n%s", got)
			}
		} else if diff := cmp.Diff(fresh(t, all()...), sorted(list(t, ns))); diff != "" {
			rt.Fatalf("the table made at once (-) and this one (+):\n%s", diff)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
