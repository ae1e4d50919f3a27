package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The client uses bare sockets: what refused a packet stands in the socket's
// error queue, which package net does not show.

const (
	icmpEcho, icmpReply   = 8, 0
	icmp6Echo, icmp6Reply = 128, 129
	echoHeader            = 8
)

// pollSlice cuts a time-out into pieces, so that a machine too busy to run us
// also stretches it.
const pollSlice = 10 * time.Millisecond

var errNoAnswer = errors.New("no answer")

func sendProbe(p Probe, token string) (Result, error) {
	fd, err := probeSocket(p)
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(p.To, p.Proto)); err != nil && err != unix.EINPROGRESS {
		return outcome(fd, fmt.Errorf("connecting: %w", err))
	}
	if p.Proto == ICMP {
		// Before it is connected, a raw socket that asks for errors gets those of all
		// echo requests of its network namespace.
		if err := reportErrors(fd, p); err != nil {
			return Result{}, err
		}
	}
	switch p.Proto {
	case TCP:
		return outcome(fd, exchangeTCP(fd, p, token))
	case UDP:
		return outcome(fd, exchange(fd, p, []byte(token), func(answer []byte) bool { return string(answer) == token }))
	default:
		request, isAnswer := echo(p.To.Addr().Is6(), token)
		return outcome(fd, exchange(fd, p, request, isAnswer))
	}
}

func probeSocket(p Probe) (int, error) {
	kind := map[Proto]int{TCP: unix.SOCK_STREAM, UDP: unix.SOCK_DGRAM, ICMP: unix.SOCK_RAW}[p.Proto]
	family, proto := unix.AF_INET, 0
	if p.Proto == ICMP {
		proto = unix.IPPROTO_ICMP
	}
	if p.To.Addr().Is6() {
		family = unix.AF_INET6
		if p.Proto == ICMP {
			proto = unix.IPPROTO_ICMPV6
		}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), bindSource(fd, p))
	if err == nil && p.Proto != ICMP {
		err = reportErrors(fd, p)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// reportErrors has the kernel keep ICMP errors for the socket.
func reportErrors(fd int, p Probe) error {
	if p.To.Addr().Is6() {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
}

func bindSource(fd int, p Probe) error {
	from := p.From
	if !from.Addr().IsValid() {
		if from.Port() == 0 {
			return nil
		}
		any := netip.IPv4Unspecified()
		if p.To.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		from = netip.AddrPortFrom(any, from.Port())
	}
	if err := unix.Bind(fd, sockaddr(from, p.Proto)); err != nil {
		return fmt.Errorf("sending from %s: %w", from, err)
	}
	return nil
}

func sockaddr(at netip.AddrPort, proto Proto) unix.Sockaddr {
	port := int(at.Port())
	if proto == ICMP {
		port = 0 // a raw socket would take it for a protocol number
	}
	if at.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: port}
	}
	return &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: port}
}

func exchangeTCP(fd int, p Probe, token string) error {
	if err := await(fd, unix.POLLOUT, p.Timeout); err != nil {
		return err
	}
	isToken := func(answer []byte) bool { return string(answer) == token }
	if err := exchange(fd, p, []byte(token), isToken); err != nil {
		return err
	}
	// A reset, not a FIN, so that the same source port can be used again at once.
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// exchange sends a request and waits for its answer.
func exchange(fd int, p Probe, request []byte, isAnswer func([]byte) bool) error {
	if _, err := unix.Write(fd, request); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	buf := make([]byte, 2048)
	for {
		if err := await(fd, unix.POLLIN, p.Timeout); err != nil {
			return err
		}
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EAGAIN:
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		case n == 0 && p.Proto == TCP:
			return errors.New("receiving: the server closed the connection")
		case isAnswer(buf[:n]):
			return nil
		}
	}
}

// await waits for an event on the socket, or an error on it.
func await(fd int, event int16, timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: event}}
	for range max(1, int(timeout/pollSlice)) {
		n, err := unix.Poll(fds, int(pollSlice.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting: %w", err)
		}
		if n <= 0 {
			continue
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return fmt.Errorf("waiting: %w", err)
		}
		if code != 0 {
			return unix.Errno(code)
		}
		return nil
	}
	return errNoAnswer
}

// outcome makes a result of how an exchange ended.
func outcome(fd int, err error) (Result, error) {
	if err == nil {
		return Result{Reached: true}, nil
	}
	if errors.Is(err, errNoAnswer) {
		return Result{TimedOut: true}, nil
	}
	if how, by, ok := icmpError(fd); ok {
		return Result{Refused: true, How: how, By: by}, nil
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
		return Result{Refused: true, How: "TCP reset"}, nil
	}
	return Result{}, err
}

// echo makes an echo request and the test for its reply.
func echo(ipv6 bool, token string) ([]byte, func([]byte) bool) {
	request, reply := byte(icmpEcho), byte(icmpReply)
	if ipv6 {
		request, reply = icmp6Echo, icmp6Reply
	}
	// type, code, checksum, identifier, sequence number; the token's first
	// bytes make the identifier, which is what NAT may change
	message := append([]byte{request, 0, 0, 0, token[0], token[1], 0, 1}, token...)
	if !ipv6 { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	return message, func(answer []byte) bool {
		if !ipv6 && len(answer) > 0 { // raw IPv4 sockets show the IP header
			answer = answer[min(len(answer), int(answer[0]&0xf)*4):]
		}
		return len(answer) >= echoHeader && answer[0] == reply && string(answer[echoHeader:]) == token
	}
}

// checksum returns the Internet checksum, RFC 1071, of an even number of bytes.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
