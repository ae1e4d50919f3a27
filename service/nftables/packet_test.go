package nftables

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// router is a host that forwards for a guest of virbr0, with our table.
type router struct {
	*host.Host
	ns              int
	guest, internet *host.Peer
	backend         *Backend
	network         network.Network
}

func newRouter(t *testing.T) *router {
	t.Helper()
	h := host.New(t, host.WithForwarding())
	h.Bridge("virbr0", "192.168.122.1/24", "fd00:122::1/64")
	r := &router{Host: h, internet: h.Internet(), guest: h.Guest("virbr0", "guest", "192.168.122.2/24", "fd00:122::2/64")}
	ns, err := os.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	r.ns = int(ns.Fd())
	r.backend = open(t, r.ns)
	mustSync(t, r.backend)
	r.network = network.Network{
		Name: "default", Bridge: "virbr0", Mode: network.ModeNAT, NATIPv6: true,
		Addresses: []netip.Prefix{prefix("192.168.122.1/24"), prefix("fd00:122::1/64")},
	}
	return r
}

// index returns the index of one of the host's interfaces.
func (r *router) index(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(r.Must("cat", "/sys/class/net/"+name+"/ifindex")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startFlows opens so many flows a second to an address.
func startFlows(t *testing.T, from, to *host.Peer, address string, rate int) *host.Flows {
	t.Helper()
	f, err := host.StartFlows(from, to, host.StreamConfig{To: netip.MustParseAddrPort(address), Rate: rate})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// bystanders returns the host's uplink.
func (r *router) bystanders(t *testing.T) func() ruleset.Host {
	wan := ruleset.Interface{Index: r.index(t, "wan0"), Name: "wan0"}
	return func() ruleset.Host { return ruleset.Host{Bystanders: []ruleset.Interface{wan}, Uplink: wan.Index} }
}

// compile returns the network's rules, for the bridge by name alone or by index.
func (r *router) compile(t *testing.T, index int) ruleset.Part {
	t.Helper()
	p, ok := ruleset.Compile(r.network, index)
	if !ok {
		t.Fatal("the network has no rules")
	}
	return p
}

// TestPrivilegedPortsAreTranslated sends from port 900. A masquerade rule that
// lacks a flag is listed just like one that works, and leaves the port alone.
func TestPrivilegedPortsAreTranslated(t *testing.T) {
	pools := map[string]network.AddrRange{
		"masquerade": {},
		"snat":       {First: netip.MustParseAddr("203.0.113.2"), Last: netip.MustParseAddr("203.0.113.2")},
	}
	for name, pool := range pools {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t)
			r.network.NATAddresses = pool
			mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, 0)}})
			for _, proto := range []host.Proto{host.TCP, host.UDP} {
				r.expectTranslated(t, proto, "192.168.122.2", "203.0.113.1", "203.0.113.2")
				r.expectTranslated(t, proto, "fd00:122::2", "2001:db8:ffff::1", "2001:db8:ffff::2")
			}
		})
	}
}

func (r *router) expectTranslated(t *testing.T, proto host.Proto, from, to, as string) {
	t.Helper()
	got := host.Try(r.guest, r.internet, host.Probe{
		Proto: proto, From: netip.AddrPortFrom(netip.MustParseAddr(from), 900),
		To: netip.AddrPortFrom(netip.MustParseAddr(to), 0),
	})
	if !got.Reached || got.Seen.Addr() != netip.MustParseAddr(as) || got.Seen.Port() < 1024 {
		t.Errorf("%s from [%s]:900: %+v, want it to come from %s, port 1024 or above", proto, from, got, as)
	}
}

// TestSwapsLoseAndLeakNothing changes a network again and again, now its
// chains and now only its elements, while the guest opens new flows.
func TestSwapsLoseAndLeakNothing(t *testing.T) {
	r := newRouter(t)
	mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, 0)}})
	flows, err := host.StartFlows(r.guest, r.internet, host.StreamConfig{To: netip.MustParseAddrPort("203.0.113.1:7000"), Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	swaps := 0
	for end := time.Now().Add(host.Patient(2 * time.Second)); time.Now().Before(end); swaps++ {
		r.network.Routes = nil
		if swaps%4 < 2 {
			r.network.Routes = []netip.Prefix{prefix("10.99.0.0/16")}
		}
		mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, 4242*(swaps%2))}})
	}
	report := flows.Stop()
	translated := report.Addresses[netip.MustParseAddr("203.0.113.2")]
	if swaps < 100 || report.Received < 500 || report.Lost > 0 || translated != report.Received {
		t.Errorf("%d swaps: %v, want none lost and all from 203.0.113.2", swaps, report)
	}
}

// TestTotalsCountPackets checks that counters count what their names say.
func TestTotalsCountPackets(t *testing.T) {
	r := newRouter(t)
	mustApply(t, r.backend, ruleset.Change{Set: []ruleset.Part{r.compile(t, 0)}})
	out := host.Try(r.guest, r.internet, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("203.0.113.1:0")})
	if !out.Reached {
		t.Fatalf("the guest does not get out: %+v", out)
	}
	back := host.Try(r.internet, r.guest, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("192.168.122.2:7")})
	if !back.Refused {
		t.Fatalf("a stranger is not refused: %+v", back)
	}
	all, err := r.backend.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := all["default"]
	if got.FromGuestPackets != 1 || got.ToGuestPackets != 1 || got.RejectedToGuestPackets != 1 || got.RejectedFromGuestPackets != 0 {
		t.Errorf("one packet went out, one came back and one was refused, but the totals are %+v", got)
	}
	if got.FromGuestBytes < 28 || got.ToGuestBytes < 28 {
		t.Errorf("bytes are not counted: %+v", got)
	}
}
