package rig

import (
	"net/netip"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// The addresses of the internet's node.
const (
	Internet4 = "203.0.113.1"
	Internet6 = "2001:db8:ffff::1"
)

// WANAddress is the host's address towards the internet.
var WANAddress = netip.MustParseAddr("203.0.113.2")

// AnswerEverything lets a host answer each refused packet: the kernel sends one
// ICMP error a second otherwise.
func AnswerEverything(h *host.Host) {
	h.Must("sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000")
}

// Guarded checks what must hold at any instant: nobody comes in, nobody forges.
func Guarded(t testing.TB, guest, internet *host.Peer, when string) {
	t.Helper()
	in := host.Try(internet, guest, host.Probe{Proto: host.UDP, To: At("192.168.122.10:0")})
	if in.Seen.IsValid() || in.Err != nil {
		t.Errorf("%s: a new connection from outside: %v", when, in)
	}
}

// Natted checks that the guest gets out under the host's address.
func Natted(t testing.TB, guest, internet *host.Peer, when string) {
	t.Helper()
	out := host.Try(guest, internet, host.Probe{Proto: host.TCP, To: At("203.0.113.1:0")})
	if !out.Reached || out.Seen.Addr() != WANAddress {
		t.Errorf("%s: from guest to internet: %v", when, out)
	}
}

// SeenFrom probes from the guest and returns the source that the internet saw.
func SeenFrom(t testing.TB, guest, internet host.Node, proto host.Proto, to, from string) netip.AddrPort {
	t.Helper()
	p := host.Probe{Proto: proto, To: netip.AddrPortFrom(netip.MustParseAddr(to), 0)}
	if from != "" {
		p.From = netip.MustParseAddrPort(from)
	}
	r := host.Try(guest, internet, p)
	if !r.Reached {
		t.Fatalf("%s to %s: %v", proto, to, r)
	}
	return r.Seen
}

// Address returns a node's address of a family.
func Address(t testing.TB, n host.Node, ipv6 bool) netip.Addr {
	t.Helper()
	addr, ok := n.(*host.Peer).Addr(ipv6)
	if !ok {
		t.Fatalf("%s has no address", n.Name())
	}
	return addr
}

// Verdict returns the fate of a new connection, as far as libvirt's rules and
// ours must agree on it: D4 answers TCP with a reset where libvirt sends ICMP.
func Verdict(r host.Result) string {
	switch {
	case r.Err != nil:
		return "error: " + r.Err.Error()
	case r.Reached:
		return "passes"
	case r.Refused:
		return "refused"
	}
	return "no answer"
}

// TryPatiently probes up to three times where nothing comes back: the kernel
// leaves an ICMP error out while another is being sent from the same processor.
func TryPatiently(from, to host.Node, p host.Probe) (r host.Result) {
	for range 3 {
		if r = host.Try(from, to, p); !r.TimedOut {
			break
		}
	}
	return r
}
