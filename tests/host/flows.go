package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FlowsReport is what became of the flows.
type FlowsReport struct {
	Sent       uint64 // flows whose one packet the sender's kernel took
	Received   uint64
	Lost       uint64
	SendErrors uint64 // flows that the sender's kernel refused, and why the first
	SendError  error
	// Addresses counts the flows by the source address that the receiver saw.
	Addresses map[netip.Addr]uint64
	// FirstPort and LastPort bound the source ports that the receiver saw.
	FirstPort, LastPort uint16
}

func (r FlowsReport) String() string {
	text := fmt.Sprintf("sent %d, received %d, lost %d, addresses %v, ports %d-%d",
		r.Sent, r.Received, r.Lost, r.Addresses, r.FirstPort, r.LastPort)
	if r.SendErrors > 0 {
		text += fmt.Sprintf(", %d not sent: %v", r.SendErrors, r.SendError)
	}
	return text
}

// The source ports of flows. They are used in turn, so that 64,000 flows are
// new to connection tracking, whatever its time-outs.
const firstFlowPort, lastFlowPort = 1500, 65499

// Flows is a series of new UDP flows under way.
type Flows struct {
	from Node
	sink *sink
	stop chan struct{}
	once sync.Once
	done chan struct{}

	sent, failed atomic.Uint64
	firstError   error // read after done
}

// StartFlows sends single packets from one node to a receiver on another, each
// from a source port of its own and so a new flow, until Stop. Of cfg.From only
// the address counts.
func StartFlows(from, to Node, cfg StreamConfig) (*Flows, error) {
	f := &Flows{from: from, stop: make(chan struct{}), done: make(chan struct{})}
	if err := openSink(to, cfg, &f.sink); err != nil {
		return nil, fmt.Errorf("sending flows from %s to %s: %w", from.Name(), cfg.To, err)
	}
	go func() {
		defer close(f.done)
		// Each flow has its own socket, so the sender stays in the node.
		if err := from.Do(func() error { f.send(cfg); return nil }); err != nil {
			f.fault(err)
		}
	}()
	return f, nil
}

func (f *Flows) send(cfg StreamConfig) {
	payload := make([]byte, max(cfg.Size, 8))
	port, seq := firstFlowPort, uint64(0)
	pace(cfg.Rate, f.stop, func() {
		binary.BigEndian.PutUint64(payload, seq)
		source := Probe{Proto: UDP, To: cfg.To, From: netip.AddrPortFrom(cfg.From.Addr(), uint16(port))}
		err := sendOnce(source, payload)
		if port++; port > lastFlowPort {
			port = firstFlowPort
		}
		if errors.Is(err, unix.EADDRINUSE) {
			return // another program's port
		}
		if err != nil {
			f.fault(err)
			return
		}
		seq++
		f.sent.Add(1)
	})
}

func (f *Flows) fault(err error) {
	if f.failed.Add(1) == 1 {
		f.firstError = err
	}
}

func sendOnce(p Probe, payload []byte) error {
	fd, err := probeSocket(p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, payload, 0, sockaddr(p.To, p.Proto))
}

// Sent returns how many flows were sent so far.
func (f *Flows) Sent() uint64 { return f.sent.Load() }

// Stop ends the series, waits for packets that are still on their way, and
// reports. Later calls report the same.
func (f *Flows) Stop() FlowsReport {
	f.once.Do(func() {
		close(f.stop)
		<-f.done
		f.sink.drain(f.sent.Load())
		f.sink.close()
	})
	all := f.sink.report(f.sent.Load())
	r := FlowsReport{
		Sent: all.Sent, Received: all.Received, Lost: all.Lost,
		SendErrors: f.failed.Load(), SendError: f.firstError, Addresses: map[netip.Addr]uint64{},
	}
	for source, count := range all.Sources {
		r.Addresses[source.Addr()] += count
		if r.FirstPort == 0 || source.Port() < r.FirstPort {
			r.FirstPort = source.Port()
		}
		r.LastPort = max(r.LastPort, source.Port())
	}
	return r
}
