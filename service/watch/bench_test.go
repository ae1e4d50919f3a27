package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

func withBridges(b *testing.B, n int) {
	b.Helper()
	watchtest.NewNamespace(b)
	for i := range n {
		br := addBridge(b, fmt.Sprint("virbr", i))
		addr, err := netlink.ParseAddr(fmt.Sprintf("10.%d.%d.1/24", i/250, i%250))
		watchtest.Must(b, err)
		watchtest.Must(b, netlink.AddrAdd(br, addr))
	}
}

func BenchmarkStart1000(b *testing.B) {
	withBridges(b, 1000)
	for b.Loop() {
		m, err := Start(b.Context(), Config{})
		watchtest.Must(b, err)
		watchtest.Must(b, m.Close())
	}
}

func BenchmarkQuery1000(b *testing.B) {
	withBridges(b, 1000)
	m := start(b, Config{})
	for b.Loop() {
		if _, ok, err := m.Query("virbr500"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkSync1000(b *testing.B) {
	withBridges(b, 1000)
	m := start(b, Config{})
	for b.Loop() {
		watchtest.Must(b, m.Sync(b.Context()))
	}
}

func BenchmarkAddresses1000(b *testing.B) {
	withBridges(b, 1000)
	m := start(b, Config{})
	for b.Loop() {
		if len(m.Addresses()) < 1000 {
			b.Fatal("addresses are missing")
		}
	}
}

// BenchmarkAppear1000 is the time from the kernel's answer to `ip link add` to
// the consumer's receipt of the change.
func BenchmarkAppear1000(b *testing.B) {
	withBridges(b, 1000)
	m := start(b, Config{})
	seen := make(chan time.Time)
	go func() {
		for c := range m.Changes() {
			if c.Kind == Appeared {
				seen <- time.Now()
			}
		}
	}()
	var sum time.Duration
	for i := range b.N {
		addBridge(b, fmt.Sprint("new", i))
		answered := time.Now()
		sum += max(0, (<-seen).Sub(answered))
	}
	b.ReportMetric(float64(sum.Microseconds())/float64(b.N), "µs/change")
}
