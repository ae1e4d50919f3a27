// Package traffic sends packets that must pass, and packets that must not, between
// a guest of a translated network and the outside while rules change, so that a
// change which loses a packet, or lets a wrong one through, is noticed.
package traffic

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Rates are packets a second.
type Rates struct {
	Stream  int // of one long flow from the guest to the outside
	Flows   int // new flows from the guest, of one packet each
	Unasked int // from outside towards the guest, which nothing asked for
	Forged  int // from the guest with a source that is not of its network
}

// forged is in no subnet that a host or a test has.
var forged = netip.MustParseAddr("100.64.66.6")

// Ports at the receivers, one for each kind.
const (
	streamPort = 9000 + iota
	flowsPort
	unaskedPort
	forgedPort
)

// Load is running traffic.
type Load struct {
	stream, unasked, forged *host.Stream
	flows                   *host.Flows
}

// Start begins all four kinds over IPv4, until Stop.
func Start(guest, outside *host.Peer, rates Rates) (*Load, error) {
	inside, ok := guest.Addr(false)
	there, found := outside.Addr(false)
	if !ok || !found {
		return nil, errors.New("starting traffic: guest and outside need IPv4 addresses")
	}
	if _, err := guest.Run("ip", "address", "replace", forged.String()+"/32", "dev", "eth0"); err != nil {
		return nil, fmt.Errorf("starting traffic: %w", err)
	}
	l := &Load{}
	var errs [4]error
	to := func(addr netip.Addr, port uint16, rate int) host.StreamConfig {
		return host.StreamConfig{To: netip.AddrPortFrom(addr, port), Rate: rate}
	}
	l.stream, errs[0] = host.StartStream(guest, outside, withSource(to(there, streamPort, rates.Stream), inside))
	l.flows, errs[1] = host.StartFlows(guest, outside, withSource(to(there, flowsPort, rates.Flows), inside))
	l.unasked, errs[2] = host.StartStream(outside, guest, to(inside, unaskedPort, rates.Unasked))
	l.forged, errs[3] = host.StartStream(guest, outside, withSource(to(there, forgedPort, rates.Forged), forged))
	if err := errors.Join(errs[:]...); err != nil {
		l.Stop()
		return nil, fmt.Errorf("starting traffic: %w", err)
	}
	return l, nil
}

func withSource(c host.StreamConfig, source netip.Addr) host.StreamConfig {
	c.From = netip.AddrPortFrom(source, 0)
	return c
}

// Received returns how many packets of the long flow have arrived so far.
func (l *Load) Received() uint64 { return l.stream.Received() }

// Stop ends all of it and reports.
func (l *Load) Stop() (r Report) {
	for _, s := range []struct {
		from *host.Stream
		to   *host.StreamReport
	}{{l.stream, &r.Stream}, {l.unasked, &r.Unasked}, {l.forged, &r.Forged}} {
		if s.from != nil {
			*s.to = s.from.Stop()
		}
	}
	if l.flows != nil {
		r.Flows = l.flows.Stop()
	}
	return r
}

// Report is the outcome of the traffic.
type Report struct {
	Stream, Unasked, Forged host.StreamReport
	Flows                   host.FlowsReport
}

func (r Report) String() string {
	return fmt.Sprintf("stream: %v\nnew flows: %v\nunasked-for: sent %d, received %d\nforged: sent %d, received %d",
		r.Stream, r.Flows, r.Unasked.Sent+r.Unasked.SendErrors, r.Unasked.Received, r.Forged.Sent, r.Forged.Received)
}

// Wrong lists what should not have happened on a network that is translated to an
// address: losses, leaks, and packets with another source.
func (r Report) Wrong(translated netip.Addr) (wrong []string) {
	say := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	say(r.Stream.Lost > 0, "%d packets of the stream were lost", r.Stream.Lost)
	say(r.Stream.SendErrors > 0, "%d packets of the stream were refused: %v", r.Stream.SendErrors, r.Stream.SendError)
	say(len(r.Stream.Sources) != 1, "the stream came from %d sources: %v", len(r.Stream.Sources), r.Stream.Sources)
	for source := range r.Stream.Sources {
		say(source.Addr() != translated, "the stream came from %s", source)
	}
	say(r.Flows.Lost > 0, "%d new flows were lost", r.Flows.Lost)
	say(r.Flows.SendErrors > 0, "%d new flows were refused: %v", r.Flows.SendErrors, r.Flows.SendError)
	for source, count := range r.Flows.Addresses {
		say(source != translated, "%d new flows came from %s", count, source)
	}
	say(r.Unasked.Received > 0, "%d packets that nothing asked for reached the guest", r.Unasked.Received)
	say(r.Forged.Received > 0, "%d packets with a forged source left", r.Forged.Received)
	say(r.Stream.Received == 0 || r.Flows.Received == 0, "nothing arrived at all")
	return wrong
}
