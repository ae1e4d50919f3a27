package service

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestFirstOverlapFindsWhatPairsFind compares the result with that of every pair.
func TestFirstOverlapFindsWhatPairsFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []owned
		for i := range rapid.IntRange(0, 12).Draw(t, "count") {
			addr := netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "b")), byte(rapid.IntRange(0, 3).Draw(t, "c")), 0})
			p := netip.PrefixFrom(addr, rapid.IntRange(8, 26).Draw(t, "bits")).Masked()
			all = append(all, owned{p, fmt.Sprint("net", i%5)})
		}
		want := false
		for i, a := range all {
			for _, b := range all[i+1:] {
				want = want || (a.network != b.network && a.prefix.Overlaps(b.prefix))
			}
		}
		a, b, got := firstOverlap(all)
		if got != want {
			t.Fatalf("%v: got %v (%v, %v)", all, got, a, b)
		}
		if got && (a.network == b.network || !a.prefix.Overlaps(b.prefix)) {
			t.Fatalf("%v and %v do not overlap", a, b)
		}
	})
}
