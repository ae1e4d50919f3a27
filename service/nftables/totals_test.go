package nftables

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// TestTotalsGoOn: totals are kept by elements, by rules of chains of the network's own
// and by counters of what was counted earlier; a network goes from each to each, and its
// totals say every packet once.
func TestTotalsGoOn(t *testing.T) {
	r := newRouter(t)
	index := r.index(t, "virbr0")
	var packets uint64
	count := func(when string) {
		t.Helper()
		packets++
		out := host.Try(r.guest, r.internet, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("203.0.113.1:0")})
		back := host.Try(r.internet, r.guest, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("192.168.122.2:7")})
		if !out.Reached || !back.Refused {
			t.Fatalf("%s: out %+v, in %+v", when, out, back)
		}
		r.expectTotals(t, when, packets)
	}
	set := func(change func(*network.Network), index int) {
		t.Helper()
		r.network.Devices, r.network.NATPorts, r.network.Routes = nil, network.PortRange{}, nil
		change(&r.network)
		mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, index)}})
	}
	standard := func(*network.Network) {}
	own := func(n *network.Network) { n.Devices = []string{"wan0"} }
	steps := []struct {
		when   string
		change func(*network.Network)
		index  int
	}{
		{"by name", standard, 0},
		{"by index", standard, index},
		{"by name again", standard, 0},
		{"with chains of its own", own, 0},
		{"the same by index", own, index},
		{"by index again", standard, index},
		{"with ports of its own", func(n *network.Network) { n.NATPorts = network.PortRange{First: 5000, Last: 6000} }, index},
		{"with a subnet behind a guest", func(n *network.Network) { n.Routes = []netip.Prefix{prefix("10.9.0.0/16")} }, index},
		{"at last", standard, index},
	}
	for _, s := range steps {
		set(s.change, s.index)
		count(s.when)
		count(s.when)
	}
	if damaged, err := r.backend.Verify(t.Context()); err != nil || len(damaged) > 0 {
		t.Errorf("Verify: %q, %v", damaged, err)
	}

	// The next process finds the bridge under another index, and then the former's.
	for _, index := range []int{4242, index} {
		if err := r.backend.Close(); err != nil {
			t.Fatal(err)
		}
		r.backend = open(t, r.ns)
		mustSync(t, r.backend, r.compile(t, index))
		count("taken over")
	}
	if got := mustSync(t, r.backend, r.compile(t, index)); got.damaged() {
		t.Errorf("another look finds %+v", got)
	}
	r.expectTotals(t, "looked at again", packets)

	if err := r.backend.ResetCounters(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	packets = 0
	r.expectTotals(t, "reset", 0)
	count("reset")
}

// expectTotals compares the totals with packets that went out, came back and were
// refused.
func (r *router) expectTotals(t *testing.T, when string, packets uint64) {
	t.Helper()
	all, err := r.backend.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := all["default"]
	if bytes := got.FromGuestBytes; bytes < 28*packets || bytes > 100*packets {
		t.Errorf("%s: %d bytes in %d packets", when, bytes, packets)
	}
	got.FromGuestBytes, got.ToGuestBytes = 0, 0
	want := ruleset.Counters{FromGuestPackets: packets, ToGuestPackets: packets, RejectedToGuestPackets: packets}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: totals, want (-) and got (+):\n%s", when, diff)
	}
}

// TestTotalsOfATableThatIsGone begin at what clients saw last, once.
func TestTotalsOfATableThatIsGone(t *testing.T) {
	r := newRouter(t)
	seen := ruleset.Counters{}
	r.backend.config.StartValues = func(string) ruleset.Counters { return seen }
	mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, 0)}})
	seen = ruleset.Counters{FromGuestPackets: 7, FromGuestBytes: 700, ToGuestPackets: 6, RejectedFromGuestPackets: 5, RejectedToGuestPackets: 4}
	if err := r.backend.Close(); err != nil {
		t.Fatal(err)
	}
	r.backend = open(t, r.ns, unowned, func(c *Config) { c.StartValues = func(string) ruleset.Counters { return seen } })
	for _, damage := range []string{"delete table " + table, "flush set " + table + " may_leave4_name", "flush table " + table} {
		run(t, r.ns, "nft", damage)
		mustSync(t, r.backend, r.compile(t, 0))
		all, err := r.backend.Counters(t.Context())
		if diff := cmp.Diff(map[string]ruleset.Counters{"default": seen}, all); err != nil || diff != "" {
			t.Errorf("%s: %v, want (-) and got (+):\n%s", damage, err, diff)
		}
	}
}
