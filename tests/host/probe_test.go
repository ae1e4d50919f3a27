package host_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// network returns a host with a bridge, a guest and the internet, all forwarding.
func network(t *testing.T) (h *host.Host, guest, internet *host.Peer) {
	t.Helper()
	h = host.New(t, host.WithForwarding())
	h.Bridge("virbr0", "192.168.122.1/24", "fd00:122::1/64")
	guest = h.Guest("virbr0", "guest", "192.168.122.10/24", "fd00:122::10/64")
	return h, guest, h.Internet()
}

func addrPort(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func TestProbeReachesWithItsSource(t *testing.T) {
	_, guest, internet := network(t)
	for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
		for _, ends := range [][2]string{
			{"192.168.122.10:900", "203.0.113.1:8080"},
			{"[fd00:122::10]:900", "[2001:db8:ffff::1]:8080"},
		} {
			from, to := addrPort(ends[0]), addrPort(ends[1])
			t.Run(fmt.Sprintf("%s/%s", proto, to), func(t *testing.T) {
				want := from
				if proto == host.ICMP {
					want = netip.AddrPortFrom(from.Addr(), 0)
				}
				for range 2 { // the source port is free again at once
					began := time.Now()
					r := host.Try(guest, internet, host.Probe{Proto: proto, To: to, From: from})
					if !r.Reached || r.Seen != want {
						t.Fatalf("got %v, want reached, seen from %v", r, want)
					}
					t.Logf("%v in %v", r, time.Since(began))
				}
			})
		}
	}
}

func TestProbeTellsDropFromRefusal(t *testing.T) {
	h, guest, internet := network(t)
	tests := []struct {
		verdict  string
		proto    host.Proto
		to       string
		how, by  string
		timedOut bool
	}{
		{"drop", host.TCP, "203.0.113.1:81", "", "", true},
		{"drop", host.UDP, "203.0.113.1:81", "", "", true},
		{"drop", host.ICMP, "203.0.113.1:0", "", "", true},
		{"drop", host.TCP, "[2001:db8:ffff::1]:81", "", "", true},
		{"drop", host.UDP, "[2001:db8:ffff::1]:81", "", "", true},
		{"drop", host.ICMP, "[2001:db8:ffff::1]:0", "", "", true},
		{"reject with tcp reset", host.TCP, "203.0.113.1:81", "TCP reset", "", false},
		{"reject with tcp reset", host.TCP, "[2001:db8:ffff::1]:81", "TCP reset", "", false},
		{"reject with icmpx port-unreachable", host.TCP, "203.0.113.1:81", "ICMP port unreachable", "192.168.122.1", false},
		{"reject with icmpx port-unreachable", host.UDP, "203.0.113.1:81", "ICMP port unreachable", "192.168.122.1", false},
		{"reject with icmpx port-unreachable", host.ICMP, "203.0.113.1:0", "ICMP port unreachable", "192.168.122.1", false},
		{"reject with icmpx port-unreachable", host.TCP, "[2001:db8:ffff::1]:81", "ICMPv6 port unreachable", "fd00:122::1", false},
		{"reject with icmpx port-unreachable", host.UDP, "[2001:db8:ffff::1]:81", "ICMPv6 port unreachable", "fd00:122::1", false},
		{"reject with icmpx port-unreachable", host.ICMP, "[2001:db8:ffff::1]:0", "ICMPv6 port unreachable", "fd00:122::1", false},
		{"reject with icmpx admin-prohibited", host.TCP, "203.0.113.1:81", "ICMP admin prohibited", "192.168.122.1", false},
		{"reject with icmpx admin-prohibited", host.UDP, "[2001:db8:ffff::1]:81", "ICMPv6 admin prohibited", "fd00:122::1", false},
		{"reject with icmpx host-unreachable", host.TCP, "203.0.113.1:81", "ICMP host unreachable", "192.168.122.1", false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s/%s/%s", test.verdict, test.proto, test.to), func(t *testing.T) {
			rule := fmt.Sprintf("iifname virbr0 meta l4proto %s %s", l4(test.proto), test.verdict)
			if _, err := h.RunInput("flush ruleset\ntable inet t { chain f { type filter hook forward priority 0; "+rule+"; }; }\n", "nft", "-f", "-"); err != nil {
				t.Fatal(err)
			}
			r := host.Try(guest, internet, host.Probe{Proto: test.proto, To: addrPort(test.to)})
			if r.Reached || r.TimedOut != test.timedOut || r.Refused == test.timedOut || r.How != test.how || r.Err != nil {
				t.Errorf("got %v, want %q", r, test.how)
			}
			if test.by != "" && r.By.String() != test.by {
				t.Errorf("got refused by %s, want %s", r.By, test.by)
			}
			if r.Seen.IsValid() {
				t.Errorf("the server saw %v", r.Seen)
			}
		})
	}
}

// TestProbesAtOnceAreKeptApart: the refusal of one echo request is not taken for
// that of another, which is sent from the same network namespace at that time.
func TestProbesAtOnceAreKeptApart(t *testing.T) {
	h, guest, internet := network(t)
	h.Must("nft", "add table inet t { chain f { type filter hook forward priority 0; meta l4proto { icmp, icmpv6 } reject; }; }")
	h.Must("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	for _, to := range []struct{ refused, passes string }{{"203.0.113.1:0", "192.168.122.1:0"}, {"[2001:db8:ffff::1]:0", "[fd00:122::1]:0"}} {
		var probes sync.WaitGroup
		over := make(chan struct{})
		for range 4 {
			probes.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						host.Try(guest, internet, host.Probe{Proto: host.ICMP, To: addrPort(to.refused)})
					}
				}
			})
		}
		for range 200 {
			if r := host.Try(guest, h, host.Probe{Proto: host.ICMP, To: addrPort(to.passes)}); !r.Reached {
				t.Errorf("to %s: %v", to.passes, r)
				break
			}
		}
		close(over)
		probes.Wait()
	}
}

// l4 returns what nft calls the protocols of a probe; one name for both families.
func l4(p host.Proto) string {
	if p == host.ICMP {
		return "{ icmp, icmpv6 }"
	}
	return string(p)
}
