package iptables

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func (b *bed) counters() (all map[string]ruleset.Counters) {
	b.t.Helper()
	err := b.Inside(func() (err error) {
		all, err = b.Counters(context.Background())
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// traffic makes each of a network's totals count: a ping out and its answer, a
// forged source, and an unrelated packet from outside.
func (b *bed) traffic(guest, outside *host.Peer) {
	b.t.Helper()
	for _, to := range []string{"203.0.113.1", "2001:db8:ffff::1"} {
		guest.Must("busybox", "ping", "-c1", "-W5", to)
	}
	_, _ = guest.Run("busybox", "ping", "-c1", "-W1", "-I", "10.99.99.99", "203.0.113.1")
	_, _ = outside.Run("busybox", "ping", "-c1", "-W1", "10.0.1.2")
}

func TestCountersNeverGoBack(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		b.Must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
		n := nat(1)
		b.Bridge(n.Bridge, n.Addresses[0].String(), n.Addresses[1].String())
		outside := b.Internet()
		guest := b.Guest(n.Bridge, "guest", "10.0.1.2/24", "fd00:2::2/64")
		guest.Must("ip", "addr", "add", "10.99.99.99/32", "dev", "eth0")
		b.apply([]network.Network{n, nat(2)})
		b.traffic(guest, outside)
		before := b.counters()
		got := before[n.Name]
		if got.FromGuestPackets < 2 || got.FromGuestBytes == 0 || got.ToGuestPackets < 2 || got.ToGuestBytes == 0 ||
			got.RejectedFromGuestPackets == 0 || got.RejectedToGuestPackets == 0 {
			t.Fatalf("after traffic: %+v", got)
		}
		if before["net2"] != (ruleset.Counters{}) {
			t.Errorf("a network without traffic: %+v", before["net2"])
		}
		last := b.counters()
		step := func(what string, do func()) {
			t.Helper()
			do()
			now := b.counters()
			if maxCounters(now[n.Name], last[n.Name]) != now[n.Name] {
				t.Errorf("%s: went back from %+v to %+v", what, last[n.Name], now[n.Name])
			}
			if diff := cmp.Diff(last[n.Name], now[n.Name]); diff != "" {
				t.Errorf("%s: others than before:\n%s", what, diff)
			}
			last = now
		}
		step("another port range", func() {
			n.NATPorts = network.PortRange{First: 2000, Last: 3000}
			b.apply([]network.Network{n})
		})
		step("other devices", func() { n.Devices = []string{"wan0"}; b.apply([]network.Network{n}) })
		step("isolated", func() {
			n.Mode, n.Devices, n.NATIPv6, n.NATPorts = network.ModeIsolated, nil, false, network.PortRange{}
			b.apply([]network.Network{n})
		})
		step("nat again", func() { n = nat(1); b.apply([]network.Network{n}) })
		step("another subnet besides", func() {
			n.Addresses = append(n.Addresses, netip.MustParsePrefix("10.77.0.1/16"))
			b.apply([]network.Network{n})
		})
		step("a flush", func() {
			b.Must("iptables", "-F")
			if now := b.counters(); now[n.Name] != last[n.Name] {
				t.Errorf("while rules are gone: %+v", now[n.Name])
			}
			b.sync(n, nat(2))
		})
		step("a restart", func() {
			b.open(Config{StartValues: func(name string) ruleset.Counters { return last[name] }})
			b.sync(n, nat(2))
		})
		b.traffic(guest, outside)
		if now := b.counters()[n.Name]; now.FromGuestPackets < last[n.Name].FromGuestPackets+2 || now.ToGuestPackets < last[n.Name].ToGuestPackets+2 {
			t.Errorf("more traffic counts from %+v to %+v", last[n.Name], now)
		}
		// Late answers, such as neighbour advertisements, are not counted, as
		// they are not forwarded.
		if err := b.Inside(func() error { return b.ResetCounters(context.Background(), n.Name) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		b.open(Config{})
		b.sync(n, nat(2))
		if now := b.counters()[n.Name]; now != (ruleset.Counters{}) {
			t.Errorf("after a reset: %+v", now)
		}
	})
}
