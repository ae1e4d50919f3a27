package iptables

import (
	"context"
	"fmt"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// BenchmarkApply adds, changes and removes one network beside others.
func BenchmarkApply(b *testing.B) {
	for _, variant := range variants {
		for _, others := range []int{0, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", variant, others), func(b *testing.B) { benchmarkApply(b, variant, others) })
		}
	}
}

func benchmarkApply(b *testing.B, variant string, others int) {
	bed := newBed(b, variant, Config{Log: quiet(), Record: "/run/virtfirewalld/iptables"})
	var nets []network.Network
	for i := range others {
		nets = append(nets, lean(i+1))
	}
	bed.sync(nets...)
	one := lean(0)
	other := one
	other.NATPorts = network.PortRange{First: 2000, Last: 3000}
	ctx := context.Background()
	with := func(n network.Network) backend.Change { return backend.Change{Set: members(n)} }
	without := backend.Change{Remove: []string{one.Name}}
	for _, step := range []struct {
		name       string
		before, do func() error
	}{
		{"add", func() error { return bed.Apply(ctx, without) },
			func() error { return bed.Apply(ctx, with(one)) }},
		{"change", func() error { return bed.Apply(ctx, with(one)) },
			func() error { return bed.Apply(ctx, with(other)) }},
		{"remove", func() error { return bed.Apply(ctx, with(one)) },
			func() error { return bed.Apply(ctx, without) }},
		{"counters", nil, func() error { _, err := bed.Counters(ctx); return err }},
		{"sync", nil, func() error { _, err := bed.Sync(ctx, members(nets...)); return err }},
		{"build", func() error { return bed.RemoveAll(ctx) }, func() error { _, err := bed.Sync(ctx, members(nets...)); return err }},
	} {
		b.Run(step.name, func(b *testing.B) {
			err := bed.Inside(func() error {
				for range b.N {
					if step.before != nil {
						b.StopTimer()
						if err := step.before(); err != nil {
							return err
						}
						b.StartTimer()
					}
					if err := step.do(); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// lean returns a NAT network like libvirt's default one.
func lean(i int) network.Network {
	n := nat(i)
	n.Addresses, n.NATIPv6 = n.Addresses[:1], false
	return n
}
