package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	few       = 10               // networks
	calmAfter = 95 * time.Second // above the longest time-out: Go wakes up for it even if it is not needed any more
	idleFor   = 2 * time.Minute
	mostIdle  = 25 << 10 // KiB

	// mostRuns is one a second. What there is are the Go runtime's own: its
	// monitor looks once a minute whether memory is to be collected, and every
	// two minutes it is, which is all that these two minutes should have.
	mostRuns = 120
)

// idler is a service at rest, in one surrounding.
type idler struct {
	what   string
	bed    *bed
	before int
}

// measureIdle leaves services alone for a while, all at the same time: what is
// counted does not depend on the machine's load.
func measureIdle(bin string, s *section) (err error) {
	s.title = fmt.Sprintf("At rest with %d networks", few)
	s.how = fmt.Sprintf("The bridges are there, and nothing happens for %s, from %s after the last change on. A run is a thread's of the service that the kernel "+
		"gave a CPU, counted by context switches; with no event these are the Go runtime's, which collects memory every two minutes. Memory is VmRSS at the end, in brackets Pss.", idleFor, calmAfter)
	var all []*idler
	defer func() {
		for _, i := range all {
			err = errors.Join(err, i.bed.Close())
		}
	}()
	for _, backend := range []string{"nftables", "iptables"} {
		for _, firewalld := range []bool{false, true} {
			b, err := newBed(bin, host.Config{})
			if err != nil {
				return err
			}
			all = append(all, &idler{what: backend, bed: b})
			if firewalld {
				all[len(all)-1].what += ", beside firewalld"
				b.Firewalld("nftables")
			}
			if err := b.rest(backend); err != nil {
				return err
			}
		}
	}
	return countRuns(all, s)
}

// rest starts the service with few networks.
func (b *bed) rest(backend string) error {
	if _, err := b.start(); err != nil {
		return err
	}
	return errors.Join(b.call("SetBackend", backend, options{}), b.addBridges(0, few), b.addRange(0, few))
}

func countRuns(all []*idler, s *section) (err error) {
	time.Sleep(calmAfter)
	for _, i := range all {
		if i.before, err = runs(i.bed.daemon.PID()); err != nil {
			return err
		}
	}
	time.Sleep(idleFor)
	for _, i := range all {
		after, err := runs(i.bed.daemon.PID())
		if err != nil {
			return err
		}
		resident, _, err := i.bed.resident()
		if err != nil {
			return err
		}
		pss, err := numbers(fmt.Sprintf("/proc/%d/smaps_rollup", i.bed.daemon.PID()), "Pss:")
		if err != nil {
			return err
		}
		s.limit(i.what+": runs", fmt.Sprint(after-i.before), fmt.Sprint(mostRuns), after-i.before <= mostRuns)
		s.limit(i.what+": memory", fmt.Sprintf("%.1f MiB (%.1f)", float64(resident)/1024, float64(pss)/1024), fmt.Sprintf("%d MiB", mostIdle>>10), resident <= mostIdle)
	}
	return nil
}

// runs returns how often a process's threads have run.
func runs(pid int) (int, error) {
	return numbers(fmt.Sprintf("/proc/%d/task/*/status", pid), "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
}

// numbers returns the sum of the numbers that stand behind names in files of /proc.
func numbers(pattern string, names ...string) (sum int, err error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("reading %s: nothing there: %w", pattern, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			for _, name := range names {
				var n int
				if _, err := fmt.Sscanf(line, name+" %d", &n); err == nil {
					sum += n
				}
			}
		}
	}
	return sum, nil
}
