package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	pairs     = 6
	windows   = 10
	rateFor   = 200 * time.Millisecond
	leastRate = 0.95 // of the rate with one network
)

// measureRate sends as many small packets as one processor can, through one
// network alone and beside 999 others.
func measureRate(bin string, s *section) error {
	s.title = "Forwarding of small packets"
	s.how = fmt.Sprintf("UDP, 18 bytes of payload, one flow, from a guest through NAT to the outside, as fast as one sender goes, counted where they arrive. %d alternating pairs with 1 and with 1,000 networks on the same host; each figure is the best of %d windows of %s, since other work on the machine only ever takes away from it.", pairs, windows, rateFor)
	return started(bin, func(b *bed) error {
		outside := b.Internet()
		if err := b.addBridges(0, many); err != nil {
			return err
		}
		if err := b.addRange(0, 1); err != nil {
			return err
		}
		guest := b.Guest(numbered(0).bridge, "guest", numbered(0).guest())
		var one, all, ratios []float64
		for i := range pairs {
			few, lot, err := b.ratePair(guest, outside, i%2 == 1)
			if err != nil {
				return err
			}
			one, all, ratios = append(one, few), append(all, lot), append(ratios, lot/few)
		}
		ratio := middle(ratios)
		s.add("with 1 network", fmt.Sprintf("%.0f packets/s", middle(one)))
		s.add("with 1,000 networks", fmt.Sprintf("%.0f packets/s", middle(all)))
		s.limit("ratio, median of pairs", fmt.Sprintf("%.3f (%.3f to %.3f)", ratio, slices.Min(ratios), slices.Max(ratios)), fmt.Sprintf("%.2f", leastRate), ratio >= leastRate)
		return nil
	})
}

// ratePair measures with one network and with many, in either order. It leaves
// one network.
func (b *bed) ratePair(guest, outside *host.Peer, manyFirst bool) (few, lot float64, err error) {
	if !manyFirst {
		if few, err = rate(guest, outside); err != nil {
			return 0, 0, err
		}
	}
	if err := b.addRange(1, many); err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Second) // what follows in the background
	if lot, err = rate(guest, outside); err != nil {
		return 0, 0, err
	}
	for i := 1; i < many; i++ {
		if err := b.remove(numbered(i), nil); err != nil {
			return 0, 0, err
		}
	}
	time.Sleep(time.Second)
	if manyFirst {
		few, err = rate(guest, outside)
	}
	return few, lot, err
}

// rate returns how many packets a second arrive: the best of several windows, for
// other work on the machine only ever takes away from it.
func rate(guest, outside *host.Peer) (best float64, err error) {
	to, _ := outside.Addr(false)
	// Somebody listens, lest each packet be answered; nobody reads, so that
	// the kernel is done with it soon.
	var listener int
	err = outside.Do(func() (err error) {
		listener, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(listener, &unix.SockaddrInet4{Port: ratePort})
	})
	if err != nil {
		return 0, fmt.Errorf("listening: %w", err)
	}
	defer unix.Close(listener)
	for range windows {
		before, err := arrived(outside)
		if err != nil {
			return 0, err
		}
		took, err := flood(guest, to)
		if err != nil {
			return 0, err
		}
		after, err := arrived(outside)
		if err != nil {
			return 0, err
		}
		best = max(best, float64(after-before)/took.Seconds())
	}
	return best, nil
}

// arrived returns how many packets the outside has received so far.
func arrived(outside *host.Peer) (uint64, error) {
	text, err := outside.Run("cat", "/sys/class/net/eth0/statistics/rx_packets")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(text), 10, 64)
}

const ratePort = 9100

// flood sends for a while from one socket, and so one flow.
func flood(from *host.Peer, to netip.Addr) (took time.Duration, err error) {
	var stop atomic.Bool
	timer := time.AfterFunc(rateFor, func() { stop.Store(true) })
	defer timer.Stop()
	err = from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: ratePort, Addr: to.As4()}); err != nil {
			return err
		}
		payload := make([]byte, 18) // with its headers the smallest Ethernet frame
		begin := time.Now()
		for !stop.Load() {
			for range 64 {
				if _, err := unix.Write(fd, payload); err != nil && err != unix.ENOBUFS {
					return os.NewSyscallError("write", err)
				}
			}
		}
		took = time.Since(begin)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("sending: %w", err)
	}
	return took, nil
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
