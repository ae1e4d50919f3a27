package nftables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// BenchmarkChange times one network being added, replaced and removed beside
// others: the backend's whole share of a call. It reports medians, since a
// collection by the runtime or a neighbour on the machine is no property of it.
func BenchmarkChange(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) { benchmarkChange(b, others, compiled, recompiled) })
		b.Run(fmt.Sprintf("own chains/others=%d", others), func(b *testing.B) {
			benchmarkChange(b, others, func(n int) ruleset.Part { return part(n, true) }, changed)
		})
	}
}

// compiled returns a NAT network without chains of its own, number n.
func compiled(n int) ruleset.Part {
	p, _ := ruleset.Compile(standard(n, network.ModeNAT), 1000+n)
	return p
}

// recompiled returns the same network in another mode.
func recompiled(n int) ruleset.Part {
	p, _ := ruleset.Compile(standard(n, network.ModeRoute), 1000+n)
	return p
}

func standard(n int, mode network.Mode) network.Network {
	return network.Network{
		Name: fmt.Sprintf("n%d", n), Bridge: fmt.Sprintf("vb%d", n), Mode: mode,
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), 24)},
	}
}

func benchmarkChange(b *testing.B, others int, make, remake func(n int) ruleset.Part) {
	ns := newNamespace(b)
	backend := open(b, ns)
	var all []ruleset.Part
	for n := range others {
		all = append(all, make(n))
	}
	mustSync(b, backend, all...)
	one := make(others)
	steps := []struct {
		name   string
		change ruleset.Change
	}{
		{"add", ruleset.Change{Set: []ruleset.Part{one}}},
		{"replace", ruleset.Change{Set: []ruleset.Part{remake(others)}}},
		{"remove", ruleset.Change{Remove: []string{one.Network}}},
	}
	times := map[string][]time.Duration{}
	for b.Loop() {
		for _, s := range steps {
			begin := time.Now()
			mustApply(b, backend, s.change)
			times[s.name] = append(times[s.name], time.Since(begin))
		}
	}
	for _, s := range steps {
		slices.Sort(times[s.name])
		b.ReportMetric(float64(times[s.name][len(times[s.name])/2].Microseconds())/1000, s.name+"-ms")
		b.ReportMetric(float64(times[s.name][len(times[s.name])*95/100].Microseconds())/1000, s.name+"-p95-ms")
	}
}

// BenchmarkSync times the first build of many networks, a Sync that finds nothing
// to repair, and a swap of all in one transaction.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ns := newNamespace(b)
			backend := open(b, ns)
			var build, look, swap, read []float64
			var all, changed []ruleset.Part
			for i := range n {
				all, changed = append(all, compiled(i)), append(changed, recompiled(i))
			}
			time1 := func(into *[]float64, f func()) {
				begin := time.Now()
				f()
				*into = append(*into, float64(time.Since(begin).Microseconds())/1000)
			}
			for b.Loop() {
				time1(&build, func() { mustSync(b, backend, all...) })
				time1(&look, func() { mustSync(b, backend, all...) })
				time1(&read, func() {
					if _, err := backend.Counters(context.Background()); err != nil {
						b.Fatal(err)
					}
				})
				time1(&swap, func() { mustApply(b, backend, ruleset.Change{Set: changed}) })
				mustSync(b, backend)
			}
			for _, m := range []struct {
				name   string
				values []float64
			}{{"build", build}, {"look", look}, {"counters", read}, {"swap", swap}} {
				slices.Sort(m.values)
				b.ReportMetric(m.values[len(m.values)/2], m.name+"-ms")
			}
		})
	}
}
