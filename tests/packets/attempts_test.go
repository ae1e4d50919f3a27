package packets

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/model"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// batch is how many probes are on their way at once: fewer than the queue of a
// tap holds.
const batch = 200

// tally counts probes: by the fate that they should have, and by the differences
// that decided on it.
type tally struct {
	fates       map[model.Fate]int
	differences map[string]int
}

func (c *tally) add(p *probe, differences []string) {
	c.fates[p.want.Fate]++
	for _, name := range differences {
		if slices.ContainsFunc(p.why, func(step string) bool { return strings.HasPrefix(step, name) }) {
			c.differences[name]++
		}
	}
}

// compare sends probes, and answers those that arrive. It fails the test for each
// that ends otherwise than the model says, and adds it to the count.
func (w *wires) compare(when string, probes []*probe, count *tally) {
	w.T.Helper()
	var all []*probe
	for part := range slices.Chunk(probes, batch) {
		w.attempt(part)
		var replies []*probe
		for _, p := range part {
			if p.want.Fate == model.Passes && w.wrong(p) == "" {
				if r := w.reply(p); r != nil {
					replies = append(replies, r)
				}
			}
		}
		w.attempt(replies)
		all = append(append(all, part...), replies...)
	}
	// What should be dropped is given time to arrive.
	time.Sleep(host.Patient(100 * time.Millisecond))
	failed := 0
	for _, p := range all {
		count.add(p, w.model.Differences())
		if wrong := w.wrong(p); wrong != "" {
			if failed++; failed <= 10 {
				w.T.Errorf("%s: %s", when, w.explain(p, wrong))
			}
		}
	}
	if failed > 0 {
		w.T.Errorf("%s: %d of %d probes ended otherwise than the model says", when, failed, len(all))
	}
}

// attempt sends probes and waits until they have ended as they should. What does
// not is sent up to twice more: the kernel leaves an ICMP error out while another
// is being sent from the same processor.
func (w *wires) attempt(probes []*probe) {
	for range 3 {
		if len(probes) == 0 {
			return
		}
		for _, p := range probes {
			w.send(p)
		}
		open := func(p *probe) bool { return w.wrong(p) != "" }
		rig.Await(200*time.Millisecond, func() bool { return !slices.ContainsFunc(probes, open) })
		probes = slices.DeleteFunc(slices.Clone(probes), func(p *probe) bool { return !open(p) || len(w.became(p)) > 0 })
	}
}

// send sends a probe under a number of its own.
func (w *wires) send(p *probe) {
	w.T.Helper()
	w.number++
	p.number = w.number
	m := message{number: p.number, proto: p.Proto, state: p.State, from: p.sent.from, to: p.sent.to, answers: p.answers}
	if p.from == nil {
		rig.Must(w.T, w.Do(func() error { return sendUDP(m) }))
		return
	}
	_, err := p.from.tap.Write(frame(p.from.tap.MAC, p.hop, m.packet()))
	rig.Must(w.T, err)
}

// sendUDP sends a message from a socket.
func sendUDP(m message) error {
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(m.from), net.UDPAddrFromAddrPort(m.to))
	if err != nil {
		return err
	}
	defer c.Close()
	packet := m.packet()
	_, err = c.Write(packet[len(packet)-8:])
	return err
}

// wrong returns what is wrong with how a probe ended so far; "" for nothing.
func (w *wires) wrong(p *probe) string {
	got := w.became(p)
	switch {
	case p.want.Fate == model.Dropped && len(got) == 0:
		return ""
	case len(got) != 1:
		return fmt.Sprintf("%d packets came", len(got))
	}
	a := got[0]
	switch {
	case a.refused != p.want.How:
		return "not refused, or not so"
	case p.want.Fate == model.Refused && a.at != w.home[p.From] && a.at != p.from:
		return "somebody else was told of the refusal"
	case p.want.Fate == model.Refused:
		return ""
	case a.at != p.to:
		return "it came to another machine"
	}
	return w.wrongAddresses(p, a)
}

func (w *wires) wrongAddresses(p *probe, a arrival) string {
	t := p.want.Translation
	if t.Network == "" {
		if a.from != p.delivered.from || a.to != p.delivered.to {
			return fmt.Sprintf("it should have come from %s to %s", p.delivered.from, p.delivered.to)
		}
		return ""
	}
	switch {
	case a.to.Addr() != p.To || p.Proto != model.ICMP && a.to.Port() != p.delivered.to.Port():
		return "the destination is another"
	case t.Pool.First.IsValid() && !t.Pool.Contains(a.from.Addr()):
		return "the source is not of the pool"
	case !t.Pool.First.IsValid() && !slices.Contains(w.sources(t.Device, p.To.Is6()), a.from.Addr()):
		return "the source is not the device's"
	case t.Ports[1] != 0 && (a.from.Port() < t.Ports[0] || a.from.Port() > t.Ports[1]):
		return "the source port is not of the range"
	}
	return ""
}

// sources returns the addresses of a family that the kernel may take for what
// leaves through a device: any of the host's if the device has none.
func (w *wires) sources(device string, ipv6 bool) []netip.Addr {
	ofFamily := func(addrs []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is6() != ipv6 })
	}
	if own := ofFamily(w.devices[device]); len(own) > 0 {
		return own
	}
	return ofFamily(slices.Concat(slices.Collect(maps.Values(w.devices))...))
}

// explain describes a probe that ended wrongly: the networks that may have to do
// with it, the model's steps and what came.
func (w *wires) explain(p *probe, wrong string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", p.Packet, wrong)
	for _, n := range w.model.Involved(p.Packet) {
		fmt.Fprintf(&b, "  %s\n", n.XML())
	}
	for _, step := range p.why {
		fmt.Fprintf(&b, "  %s\n", step)
	}
	for _, a := range w.became(p) {
		fmt.Fprintf(&b, "  at %s: from %s to %s %s\n", a.at.tap.Device, a.from, a.to, a.refused)
	}
	if len(w.became(p)) == 0 {
		b.WriteString("  nobody got it, and nobody was told\n")
	}
	return b.String()
}
