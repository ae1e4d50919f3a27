package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const tokenSize = 16

// newToken returns a token that identifies one probe's packets.
func newToken() string {
	raw := make([]byte, tokenSize)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	return string(raw)
}

// probeServer waits for one token and remembers where it came from.
type probeServer struct {
	port  uint16
	close func() error
	wait  sync.WaitGroup
	seen  chan netip.AddrPort // holds the first source
}

// startProbeServer opens the server's socket in the calling thread's network
// namespace.
func startProbeServer(p Probe, token string) (*probeServer, error) {
	s := &probeServer{seen: make(chan netip.AddrPort, 1)}
	switch p.Proto {
	case TCP:
		return s, s.serveTCP(p.Listen, token)
	case UDP:
		return s, s.serveUDP(p.Listen, token)
	case ICMP:
		return s, s.serveICMP(p.Listen.Addr().Is6(), token)
	}
	return nil, fmt.Errorf("no such protocol: %q", p.Proto)
}

// stop closes the server and returns the source that it saw, if any. After an
// answer it has seen one: the kernel answers an echo request before we read it.
func (s *probeServer) stop(answered bool) (source netip.AddrPort) {
	if answered {
		select {
		case source = <-s.seen:
		case <-time.After(Patient(2 * time.Second)):
		}
	}
	s.close()
	s.wait.Wait()
	select {
	case source = <-s.seen:
	default:
	}
	return source
}

func (s *probeServer) saw(source netip.AddrPort) {
	select {
	case s.seen <- netip.AddrPortFrom(source.Addr().Unmap(), source.Port()):
	default:
	}
}

func (s *probeServer) serveTCP(at netip.AddrPort, token string) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	s.close = l.Close
	s.wait.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			s.answer(conn, token)
		}
	})
	return nil
}

func (s *probeServer) answer(conn *net.TCPConn, token string) {
	defer conn.Close()
	// A reset at the end leaves no TIME_WAIT that keeps the port from the next probe.
	_ = conn.SetLinger(0)
	_ = conn.SetDeadline(time.Now().Add(Patient(2 * time.Second)))
	got := make([]byte, tokenSize)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != token {
		return
	}
	s.saw(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	if _, err := conn.Write(got); err != nil {
		return
	}
	_, _ = conn.Read(got) // until the client is done
}

func (s *probeServer) serveUDP(at netip.AddrPort, token string) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.port = conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	s.close = conn.Close
	s.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, source, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && string(buf[:n]) == token {
				s.saw(source)
				_, _ = conn.WriteToUDPAddrPort(buf[:n], source)
			}
		}
	})
	return nil
}

// serveICMP only looks on: the kernel answers echo requests.
func (s *probeServer) serveICMP(ipv6 bool, token string) error {
	network, request := "ip4:icmp", byte(icmpEcho)
	if ipv6 {
		network, request = "ip6:ipv6-icmp", icmp6Echo
	}
	conn, err := net.ListenIP(network, nil)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.close = conn.Close
	s.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, source, err := conn.ReadFromIP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < echoHeader || buf[0] != request || string(buf[echoHeader:n]) != token {
				continue
			}
			if addr, ok := netip.AddrFromSlice(source.IP); ok {
				s.saw(netip.AddrPortFrom(addr, 0))
			}
		}
	})
	return nil
}
