package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/traffic"
)

// hostAddress is the host's own on its uplink, which networks translate to.
var hostAddress = netip.MustParseAddr("203.0.113.2")

const reloads = 5

// measureReload reloads many changed files under traffic through one of the
// networks.
func measureReload(bin string, s *section) error {
	s.title = "Reload of 1,000 changed files under traffic"
	s.how = fmt.Sprintf(`%d Reloads, each with another NAT port range in all 1,000 files, while through one of the networks run:
a stream of 10,000 packets a second, 1,000 new flows a second, and, to see leaks, 2,000 packets a second
that nothing asked for towards the guest and 2,000 with a forged source from it.`, reloads)
	return withBed(bin, func(b *bed) error {
		outside := b.Internet()
		if err := b.addBridges(0, many); err != nil {
			return err
		}
		if err := b.store(many, libvirtPort); err != nil {
			return err
		}
		if _, err := b.start(); err != nil {
			return err
		}
		guest := b.Guest(numbered(many/2).bridge, "guest", numbered(many/2).guest())
		load, err := traffic.Start(guest, outside, traffic.Rates{Stream: 10000, Flows: 1000, Unasked: 2000, Forged: 2000})
		if err != nil {
			return err
		}
		took, transactions, err := b.reloadAll()
		r := load.Stop()
		if err != nil {
			return err
		}
		wrong := r.Wrong(hostAddress)
		s.add("a Reload, with this traffic beside it", took.String())
		s.limit("transactions of a Reload, at most", fmt.Sprint(transactions), "3", transactions <= 3)
		s.limit("the stream", fmt.Sprintf("%d sent, %d lost, longest gap %s", r.Stream.Sent, r.Stream.Lost, milliseconds(r.Stream.LongestGap)), "0 lost", r.Stream.Lost == 0)
		s.limit("new flows", fmt.Sprintf("%d sent, %d lost, sources %v", r.Flows.Sent, r.Flows.Lost, r.Flows.Addresses), "0 lost, all translated",
			r.Flows.Lost == 0 && len(r.Flows.Addresses) == 1 && r.Flows.Addresses[hostAddress] > 0)
		s.limit("unasked-for packets", fmt.Sprintf("%d sent, %d arrived", r.Unasked.Sent+r.Unasked.SendErrors, r.Unasked.Received), "0", r.Unasked.Received == 0)
		s.limit("forged packets", fmt.Sprintf("%d sent, %d left", r.Forged.Sent, r.Forged.Received), "0", r.Forged.Received == 0)
		s.limit("all of it", verdictOf(wrong), "as it should be", len(wrong) == 0)
		return nil
	})
}

// reloadAll reloads several times, and returns the most transactions that one
// took the kernel.
func (b *bed) reloadAll() (took times, transactions uint32, err error) {
	time.Sleep(5 * time.Second) // until checksum help has its bridges
	for i := range reloads {
		if err := b.store(many, libvirtPort+1+i); err != nil {
			return nil, 0, err
		}
		before, err := traffic.Generation(b)
		if err != nil {
			return nil, 0, err
		}
		begin := time.Now()
		if err := b.call("Reload"); err != nil {
			return nil, 0, err
		}
		took = append(took, time.Since(begin))
		after, err := traffic.Generation(b)
		if err != nil {
			return nil, 0, err
		}
		transactions = max(transactions, after-before)
		time.Sleep(500 * time.Millisecond)
	}
	return took, transactions, nil
}

func verdictOf(wrong []string) string {
	if len(wrong) == 0 {
		return "as it should be"
	}
	return strings.Join(wrong, "; ")
}
