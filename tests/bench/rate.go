package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rate returns how many packets arrive for each second of the sender's processor
// time. Other work on the machine takes from a clock's second, not from that.
func rate(from *net.UDPConn, to netip.AddrPort, receiver end) (float64, error) {
	before, err := receiver.received()
	if err != nil {
		return 0, err
	}
	used, err := flood(from, to)
	if err != nil {
		return 0, err
	}
	after, err := receiver.received()
	if err != nil {
		return 0, err
	}
	return float64(after-before) / used.Seconds(), nil
}

// received returns how many packets the end has received so far.
func (e end) received() (n uint64, err error) {
	err = e.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("reading the counters of %s: %w", e.Name(), err)
		}
		n = link.Attrs().Statistics.RxPackets
		return nil
	})
	return n, err
}

// flood sends from one thread until that has used its processor time.
func flood(from *net.UDPConn, to netip.AddrPort) (used time.Duration, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { used, err = floodSocket(int(fd), to) })
	if err == nil {
		err = controlErr
	}
	if err != nil {
		return 0, fmt.Errorf("sending to %s: %w", to, err)
	}
	return used, nil
}

func floodSocket(fd int, to netip.AddrPort) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return 0, os.NewSyscallError("connect", err)
	}
	payload := make([]byte, 18) // with its headers the smallest Ethernet frame
	begin, err := threadTime()
	for used := time.Duration(0); err == nil; {
		if used >= pathFor {
			return used, nil
		}
		for range 64 {
			if _, err := unix.Write(fd, payload); err != nil && err != unix.ENOBUFS && err != unix.EAGAIN {
				return 0, os.NewSyscallError("write", err)
			}
		}
		var now time.Duration
		now, err = threadTime()
		used = now - begin
	}
	return 0, err
}

// threadTime returns the processor time that the calling thread has used.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(t.Nano()), nil
}

// series are the values of several rounds.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

func (s series) String() string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", s.median(), slices.Min(s), slices.Max(s))
}

// ratios returns those of each round's rates to another lane's of the same round.
func ratios(of, to []rates) (out, in series) {
	for i, r := range of {
		out, in = append(out, r.out/to[i].out), append(in, r.in/to[i].in)
	}
	return out, in
}
