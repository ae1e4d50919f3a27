package host_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func TestStreamLosesNothingByItself(t *testing.T) {
	_, guest, internet := network(t)
	s, err := host.StartStream(guest, internet, host.StreamConfig{
		From: addrPort("192.168.122.10:900"), To: addrPort("203.0.113.1:9000"), Rate: 10000,
	})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	r := s.Stop()
	t.Log(r)
	if r.Lost != 0 || r.Duplicated != 0 || r.Reordered != 0 || r.SendErrors != 0 {
		t.Errorf("the stream was not clean: %v", r)
	}
	if r.Sent < 15000 {
		t.Errorf("sent %d packets in 2 s, want about 20,000", r.Sent)
	}
	if len(r.Sources) != 1 || r.Sources[addrPort("192.168.122.10:900")] != r.Sent {
		t.Errorf("got sources %v", r.Sources)
	}
}

// A stream that cannot tell when packets are lost or change their source is no
// witness: both are done to it on purpose.
func TestStreamSeesLossAndTranslation(t *testing.T) {
	h, guest, internet := network(t)
	s, err := host.StartStream(guest, internet, host.StreamConfig{To: addrPort("[2001:db8:ffff::1]:9000"), Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return s.Received() > 200 })
	h.Must("nft", "add table inet t; add chain inet t f { type filter hook forward priority 0; policy drop; }")
	at := s.Sent()
	await(t, func() bool { return s.Sent() > at+200 })
	h.Must("nft", "delete", "table", "inet", "t")
	// Stateless, so that it concerns the flow that is under way.
	h.Must("nft", "add table netdev t; add chain netdev t e { type filter hook egress device wan0 priority 0; }; "+
		"add rule netdev t e ip6 daddr 2001:db8:ffff::1 udp dport 9000 ip6 saddr set 2001:db8:ffff::77")
	at = s.Received()
	await(t, func() bool { return s.Received() > at+200 })
	r := s.Stop()
	t.Log(r)
	if r.Lost < 200 || r.Lost != r.Sent-r.Received {
		t.Errorf("got %d lost of %d, want at least 200", r.Lost, r.Sent)
	}
	var addrs = map[netip.Addr]bool{}
	for source := range r.Sources {
		addrs[source.Addr()] = true
	}
	if len(addrs) != 2 || !addrs[netip.MustParseAddr("fd00:122::10")] || !addrs[netip.MustParseAddr("2001:db8:ffff::77")] {
		t.Errorf("got sources %v", r.Sources)
	}
}

func TestFlowsAreNewAndShowTheirSource(t *testing.T) {
	h, guest, internet := network(t)
	h.Must("nft", "add table ip t; add chain ip t p { type nat hook postrouting priority 100; }; add rule ip t p oifname wan0 counter masquerade")
	f, err := host.StartFlows(guest, internet, host.StreamConfig{To: addrPort("203.0.113.1:9000"), Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	r := f.Stop()
	t.Log(r)
	if r.Lost != 0 || r.SendErrors != 0 || r.Sent < 1500 {
		t.Errorf("got %v, want about 2,000 flows and none lost", r)
	}
	if len(r.Addresses) != 1 || r.Addresses[netip.MustParseAddr("203.0.113.2")] != r.Sent {
		t.Errorf("got addresses %v, want only the host's", r.Addresses)
	}
	// Each was a flow of its own to connection tracking.
	out := h.Must("nft", "-j", "list", "chain", "ip", "t", "p")
	if got := counter(t, out); got != r.Sent {
		t.Errorf("NAT saw %d new flows, %d were sent", got, r.Sent)
	}
}
