package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	many      = 1000 // networks
	mostStart = time.Second
	mostKiB   = 40 << 10
)

// measureStart starts the service with many persistent networks: once with
// nothing in the kernel, as after boot, and again over its own rules.
func measureStart(bin string, s *section) error {
	s.title = "Start with 1,000 persistent networks"
	s.how = "From the start of the process to READY=1, with the name on the bus; 1,000 files, all bridges there. Five starts each."
	return withBed(bin, func(b *bed) error {
		if err := b.addBridges(0, many); err != nil {
			return err
		}
		if err := b.store(many, libvirtPort); err != nil {
			return err
		}
		var boot, restart, crash times
		for range 5 {
			for _, one := range []struct {
				into *times
				end  func() error
			}{{&boot, b.stop}, {&restart, b.kill}, {&crash, b.stop}} {
				took, err := b.start()
				if err != nil {
					return err
				}
				*one.into = append(*one.into, took)
				if err := one.end(); err != nil {
					return err
				}
			}
			if _, err := b.Run("nft", "delete", "table", "inet", "libvirt_network"); err != nil {
				return err
			}
		}
		limit := milliseconds(mostStart)
		s.limit("nothing in the kernel", boot.String(), limit, boot.median() <= mostStart)
		s.limit("after a stop", restart.String(), limit, restart.median() <= mostStart)
		s.limit("after kill -9", crash.String(), limit, crash.median() <= mostStart)
		return nil
	})
}

func (b *bed) stop() error { return b.daemon.Stop() }

func (b *bed) kill() error {
	_ = b.daemon.Kill() // its error is that it was killed
	return nil
}

// measureMemory measures the service's resident memory after all that makes it
// large.
func measureMemory(bin string, s *section) error {
	s.title = "Resident memory with 1,000 networks"
	s.how = "VmRSS of the service right after the work and 5 s later, the larger of the two; in brackets VmHWM, the most that it ever was since the process started."
	err := started(bin, func(b *bed) error {
		if err := b.addBridges(0, many); err != nil {
			return err
		}
		if err := b.memory(s, "without any network", false); err != nil {
			return err
		}
		if err := b.addRange(0, many); err != nil {
			return err
		}
		return b.memory(s, "after 1,000 adds", true)
	})
	if err != nil {
		return err
	}
	return withBed(bin, func(b *bed) error {
		if err := b.addBridges(0, many); err != nil {
			return err
		}
		if err := b.store(many, libvirtPort); err != nil {
			return err
		}
		if _, err := b.start(); err != nil {
			return err
		}
		if err := b.memory(s, "after start with 1,000", true); err != nil {
			return err
		}
		for i := range 3 {
			if err := b.store(many, libvirtPort+1+i); err != nil {
				return err
			}
			if err := b.call("Reload"); err != nil {
				return err
			}
		}
		return b.memory(s, "after three Reloads of 1,000 changed", true)
	})
}

func (b *bed) memory(s *section, when string, limited bool) error {
	resident, peak, err := b.resident()
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	later, _, err := b.resident()
	if err != nil {
		return err
	}
	resident = max(resident, later)
	value := fmt.Sprintf("%.1f MiB (%.1f)", float64(resident)/1024, float64(peak)/1024)
	if !limited {
		s.add(when, value)
		return nil
	}
	s.limit(when, value, fmt.Sprintf("%d MiB", mostKiB>>10), resident <= mostKiB)
	return nil
}

// resident returns the service's memory in KiB.
func (b *bed) resident() (now, peak int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.daemon.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	if now == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("reading the memory of process %d: no VmRSS and VmHWM", b.daemon.PID())
	}
	return now, peak, nil
}
