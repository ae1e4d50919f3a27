package host

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Proto is the protocol of a probe.
type Proto string

// What a probe can send.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp" // echo; ICMPv6 to IPv6 addresses
)

// DefaultTimeout is how long a probe waits before it counts as dropped.
const DefaultTimeout = 300 * time.Millisecond

// Probe is one exchange: a packet (for TCP a connection) with a token, and the
// server's answer.
type Probe struct {
	Proto Proto
	// To is where the packet goes. With port 0 the server picks one.
	To netip.AddrPort
	// From is the source; the kernel picks what is not set (an invalid address,
	// port 0).
	From netip.AddrPort
	// Listen is where the server listens, if that is not To: when To is
	// translated on the way.
	Listen netip.AddrPort
	// Timeout bounds the wait for each answer; zero means DefaultTimeout. It
	// is stretched when the machine is too busy to run the probe.
	Timeout time.Duration
}

func (p Probe) String() string {
	text := fmt.Sprintf("%s to %s", p.Proto, p.To)
	if p.From.IsValid() || p.From.Port() != 0 {
		text += fmt.Sprintf(" from %s", p.From)
	}
	return text
}

// Result is what became of a probe. Of Reached, Refused, TimedOut and Err
// exactly one is set.
type Result struct {
	Reached bool // the server saw the packet, and its answer came back
	Refused bool // a TCP reset or an ICMP error came back
	// TimedOut means that nothing came back. Seen tells whether the packet or
	// the answer was lost.
	TimedOut bool
	// Err is what kept the probe from being made, such as a missing route, or
	// a packet that the sender's own firewall refused.
	Err error

	Seen netip.AddrPort // the source that the server saw; invalid when it saw nothing
	How  string         // of Refused: "TCP reset", "ICMP port unreachable" and so on
	By   netip.Addr     // of Refused by ICMP: who sent the error
}

func (r Result) String() string {
	var parts []string
	switch {
	case r.Reached:
		parts = append(parts, "reached")
	case r.Refused:
		parts = append(parts, "refused: "+r.How)
		if r.By.IsValid() {
			parts = append(parts, "by "+r.By.String())
		}
	case r.TimedOut:
		parts = append(parts, "no answer")
	default:
		parts = append(parts, fmt.Sprintf("not sent: %v", r.Err))
	}
	if r.Seen.IsValid() {
		parts = append(parts, "seen from "+r.Seen.String())
	}
	return strings.Join(parts, ", ")
}

// Try starts a server on one node, sends a probe to it from another, and says
// what became of it. Exactly one packet (TCP: one connection) is sent.
func Try(from, server Node, p Probe) Result {
	r, err := try(from, server, p)
	if err != nil {
		r = Result{Err: fmt.Errorf("probing %s from %s with %s: %w", server.Name(), from.Name(), p, err), Seen: r.Seen}
	}
	return r
}

func try(from, server Node, p Probe) (r Result, err error) {
	if p.Timeout == 0 {
		p.Timeout = Patient(DefaultTimeout)
	}
	if !p.Listen.IsValid() {
		p.Listen = p.To
	}
	token := newToken()
	var s *probeServer
	err = server.Do(func() error {
		s, err = startProbeServer(p, token)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if p.To.Port() == 0 {
		p.To = netip.AddrPortFrom(p.To.Addr(), s.port)
	}
	err = from.Do(func() error {
		r, err = sendProbe(p, token)
		return err
	})
	r.Seen = s.stop(r.Reached)
	return r, err
}
