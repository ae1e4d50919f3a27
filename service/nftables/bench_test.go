package nftables

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// BenchmarkChange times one network being added, replaced and removed beside
// others: the backend's whole share of a call. It reports medians, since a
// collection by the runtime or a neighbour on the machine is no property of it.
func BenchmarkChange(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		for _, names := range []bool{true, false} {
			b.Run(fmt.Sprintf("others=%d/names=%v", others, names), func(b *testing.B) {
				benchmarkChange(b, others, names, true)
			})
		}
		b.Run(fmt.Sprintf("others=%d/names=true/counters=false", others), func(b *testing.B) {
			benchmarkChange(b, others, true, false)
		})
	}
}

func benchmarkChange(b *testing.B, others int, names, counters bool) {
	ns := newNamespace(b)
	backend := open(b, ns)
	make := func(n int) ruleset.Part {
		p := part(n, names)
		if !counters {
			p.Counters = nil
			for i := range p.Chains {
				for j := range p.Chains[i].Rules {
					p.Chains[i].Rules[j].Counter = ""
				}
			}
		}
		return p
	}
	var all []ruleset.Part
	for n := range others {
		all = append(all, make(n))
	}
	mustSync(b, backend, all...)
	one := make(others)
	other := make(others)
	other.Chains = slices.Clone(other.Chains)
	other.Chains[0].Rules = slices.Clone(other.Chains[0].Rules)
	other.Chains[0].Rules[0].Comment = "changed"
	steps := []struct {
		name   string
		change ruleset.Change
	}{
		{"add", ruleset.Change{Set: []ruleset.Part{one}}},
		{"replace", ruleset.Change{Set: []ruleset.Part{other}}},
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
			all := parts(n)
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
				changed := parts(n)
				for i := range changed {
					changed[i].Chains[0].Rules[0].Comment = "changed"
				}
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
