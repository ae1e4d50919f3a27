package zones_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// All figures include firewalld's own time to answer on a real bus.
func BenchmarkFirewalld(b *testing.B) {
	f := newFirewalld(b)
	f.install()
	ctx := b.Context()
	b.Run("Bind and Unbind", func(b *testing.B) {
		for b.Loop() {
			must(b, bind(ctx, f, "virbr0", "libvirt"))
			must(b, f.Unbind(ctx, "", "virbr0"))
		}
	})
	b.Run("Bind where it is", func(b *testing.B) {
		must(b, bind(ctx, f, "virbr0", "libvirt"))
		for b.Loop() {
			must(b, bind(ctx, f, "virbr0", "libvirt"))
		}
		must(b, f.Unbind(ctx, "", "virbr0"))
	})
	choose := func(b *testing.B) {
		for b.Loop() {
			have, err := f.Installed(ctx)
			must(b, err)
			_, err = zones.Choose("", "nat", have)
			must(b, err)
		}
	}
	b.Run("Choose, asking", choose)
	b.Run("Interfaces", func(b *testing.B) {
		for b.Loop() {
			_, err := f.Interfaces(ctx)
			must(b, err)
		}
	})
	b.Run("Install, all there", func(b *testing.B) {
		for b.Loop() {
			_, err := f.Install(ctx, false, nil)
			must(b, err)
		}
	})
	b.Run("Install and Remove, two reloads", func(b *testing.B) {
		_, err := f.Remove(ctx, zones.Removal{}, nil)
		must(b, err)
		for b.Loop() {
			_, err := f.Install(ctx, false, nil)
			must(b, err)
			_, err = f.Remove(ctx, zones.Removal{}, nil)
			must(b, err)
		}
		f.install()
	})
	b.Run("BindAll, 60 bridges", func(b *testing.B) {
		for b.Loop() {
			for _, err := range f.BindAll(ctx, bindings(60)) {
				must(b, err)
			}
			b.StopTimer()
			f.cmd("--reload")
			b.StartTimer()
		}
	})
	watching, cancel := context.WithCancel(ctx)
	events, err := f.Watch(watching)
	must(b, err)
	b.Run("Choose, from memory", choose)
	cancel()
	for range events {
	}
}

func bind(ctx context.Context, f *firewalld, iface, zone string) error {
	_, err := f.Bind(ctx, iface, zone)
	return err
}

func bindings(n int) []zones.Binding {
	var all []zones.Binding
	for i := range n {
		all = append(all, zones.Binding{Interface: fmt.Sprintf("virbr%d", i), Zone: "libvirt"})
	}
	return all
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
