package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// StreamConfig describes a lasting UDP stream.
type StreamConfig struct {
	To     netip.AddrPort // where the packets go; the port is needed
	From   netip.AddrPort // source; what is not set the kernel picks, once
	Listen netip.AddrPort // where the receiver listens, if not To
	Rate   int            // packets, or for Flows new flows, a second
	Size   int            // bytes of payload; zero means the least, 8
}

// StreamReport is what became of a stream.
type StreamReport struct {
	Sent       uint64 // packets that the sender's kernel took
	Received   uint64 // distinct ones that arrived
	Lost       uint64
	Duplicated uint64
	Reordered  uint64 // that arrived after one that was sent later
	// SendErrors counts packets that the sender's kernel refused, and SendError
	// is the first reason. With a firewall on the way this is an ICMP error for
	// an earlier packet.
	SendErrors uint64
	SendError  error
	// LongestGap is the longest time without an arrival, from the first one on.
	LongestGap time.Duration
	// Sources counts the packets by the source that the receiver saw.
	Sources map[netip.AddrPort]uint64
}

func (r StreamReport) String() string {
	text := fmt.Sprintf("sent %d, received %d, lost %d, duplicated %d, reordered %d, longest gap %s, sources %v",
		r.Sent, r.Received, r.Lost, r.Duplicated, r.Reordered, r.LongestGap, r.Sources)
	if r.SendErrors > 0 {
		text += fmt.Sprintf(", %d not sent: %v", r.SendErrors, r.SendError)
	}
	return text
}

// Stream is a UDP stream under way.
type Stream struct {
	sender *net.UDPConn
	sink   *sink
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}

	sent, failed atomic.Uint64
	firstError   error // read after done
}

// StartStream sends numbered packets from one node to a receiver on another,
// until Stop.
func StartStream(from, to Node, cfg StreamConfig) (*Stream, error) {
	s := &Stream{stop: make(chan struct{}), done: make(chan struct{})}
	err := openSink(to, cfg, &s.sink)
	if err == nil {
		err = from.Do(func() (err error) {
			s.sender, err = net.DialUDP("udp", udpSource(cfg), net.UDPAddrFromAddrPort(cfg.To))
			return err
		})
		if err != nil {
			s.sink.close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("streaming from %s to %s: %w", from.Name(), cfg.To, err)
	}
	go s.send(cfg)
	return s, nil
}

func udpSource(cfg StreamConfig) *net.UDPAddr {
	if !cfg.From.IsValid() && cfg.From.Port() == 0 {
		return nil
	}
	addr := &net.UDPAddr{Port: int(cfg.From.Port())}
	if cfg.From.Addr().IsValid() {
		addr.IP = cfg.From.Addr().AsSlice()
	}
	return addr
}

func (s *Stream) send(cfg StreamConfig) {
	defer close(s.done)
	payload := make([]byte, max(cfg.Size, 8))
	var seq uint64
	pace(cfg.Rate, s.stop, func() {
		binary.BigEndian.PutUint64(payload, seq)
		if _, err := s.sender.Write(payload); err != nil {
			if s.failed.Add(1) == 1 {
				s.firstError = err
			}
			return // the number goes to the next one, so that it does not count as lost
		}
		seq++
		s.sent.Add(1)
	})
}

// pace calls fn at a steady rate until stop is closed. After a hold-up it
// catches up in small bursts, which fit into the kernel's queues.
func pace(rate int, stop <-chan struct{}, fn func()) {
	const burst = 64
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	began, calls := time.Now(), 0
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		due := int(time.Since(began).Seconds() * float64(rate))
		for range min(due-calls, burst) {
			fn()
			calls++
		}
	}
}

// Sent returns how many packets were sent so far.
func (s *Stream) Sent() uint64 { return s.sent.Load() }

// Received returns how many packets arrived so far.
func (s *Stream) Received() uint64 { return s.sink.received.Load() }

// Stop ends the stream, waits for packets that are still on their way, and
// reports. Later calls report the same.
func (s *Stream) Stop() StreamReport {
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		s.sink.drain(s.sent.Load())
		s.sender.Close()
		s.sink.close()
	})
	sent := s.sent.Load()
	r := s.sink.report(sent)
	r.SendErrors, r.SendError = s.failed.Load(), s.firstError
	return r
}

// sink receives numbered packets and remembers which.
type sink struct {
	conn     *net.UDPConn
	done     chan struct{}
	received atomic.Uint64

	// What follows is the receiver's until done is closed.
	seen       []uint64 // one bit a number
	next       uint64   // one more than the highest number seen
	duplicated uint64
	reordered  uint64
	last       time.Time
	gap        time.Duration
	sources    map[netip.AddrPort]uint64
}

// receiveBuffer holds several seconds of the fastest stream, should the
// receiver not get to run.
const receiveBuffer = 64 << 20

func openSink(node Node, cfg StreamConfig, to **sink) error {
	if cfg.Rate <= 0 {
		return errors.New("the rate must be positive")
	}
	at := cfg.Listen
	if !at.IsValid() {
		at = cfg.To
	}
	s := &sink{done: make(chan struct{}), sources: map[netip.AddrPort]uint64{}}
	err := node.Do(func() (err error) {
		s.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { // root may exceed net.core.rmem_max
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		})
	}
	if err != nil {
		s.conn.Close()
		return err
	}
	go s.receive()
	*to = s
	return nil
}

func (s *sink) receive() {
	defer close(s.done)
	buf := make([]byte, 65536)
	for {
		n, source, err := s.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue
		}
		now := time.Now()
		if !s.last.IsZero() {
			s.gap = max(s.gap, now.Sub(s.last))
		}
		s.last = now
		s.sources[netip.AddrPortFrom(source.Addr().Unmap(), source.Port())]++
		s.note(binary.BigEndian.Uint64(buf))
	}
}

func (s *sink) note(seq uint64) {
	const most = 1 << 32 // a stray packet must not make us take all memory
	if seq >= most {
		return
	}
	for uint64(len(s.seen)) <= seq/64 {
		s.seen = append(s.seen, 0)
	}
	word, bit := &s.seen[seq/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		s.duplicated++
		return
	}
	*word |= bit
	s.received.Add(1)
	if seq < s.next {
		s.reordered++
	}
	s.next = max(s.next, seq+1)
}

// drain waits until all packets have arrived, or none has for a while.
func (s *sink) drain(sent uint64) {
	before := s.received.Load()
	for idle := 0; idle < 30 && s.received.Load() < sent; idle++ {
		time.Sleep(10 * time.Millisecond)
		if now := s.received.Load(); now != before {
			before, idle = now, 0
		}
	}
}

func (s *sink) close() {
	s.conn.Close()
	<-s.done
}

func (s *sink) report(sent uint64) StreamReport {
	received := s.received.Load()
	return StreamReport{
		Sent: sent, Received: received, Lost: sent - min(sent, received),
		Duplicated: s.duplicated, Reordered: s.reordered, LongestGap: s.gap, Sources: s.sources,
	}
}
