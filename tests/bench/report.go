package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is one line of a table: what was measured, and whether it is within its
// limit where it has one.
type row struct {
	what, value, limit string
	missed             bool
}

// section is one table with a sentence on how it was measured.
type section struct {
	title, how string
	rows       []row
	load       string // of the machine, before and after
}

func (s *section) add(what, value string) { s.addRow(row{what: what, value: value}) }

// limit adds a row that has a limit.
func (s *section) limit(what, value, limit string, kept bool) {
	s.addRow(row{what, value, limit, !kept})
}

// addRow prints a row too: some measurements take minutes.
func (s *section) addRow(r row) {
	if len(s.rows) == 0 {
		fmt.Printf("\n%s\n", s.title)
	}
	fmt.Printf("  %-50s  %s%s\n", r.what, r.value, verdict(r, "   limit %s: %s"))
	s.rows = append(s.rows, r)
}

// report is what a run found.
type report struct{ sections []*section }

func (r *report) missed() (n int) {
	for _, s := range r.sections {
		for _, row := range s.rows {
			if row.missed {
				n++
			}
		}
	}
	return n
}

func verdict(r row, format string) string {
	switch {
	case r.limit == "":
		return ""
	case r.missed:
		return fmt.Sprintf(format, r.limit, "MISSED")
	}
	return fmt.Sprintf(format, r.limit, "kept")
}

// sectionMark begins a section of docs/benchmarks.md.
const sectionMark = "\n## "

// update returns the text of docs/benchmarks.md with this run's sections in the place of
// those of the same titles. What other targets measured stays.
func (r *report) update(old string, m machine) string {
	parts := strings.Split(old, sectionMark)[1:]
	for _, s := range r.sections {
		text := s.markdown(m)
		i := slices.IndexFunc(parts, func(part string) bool { return strings.HasPrefix(part, s.title+"\n") })
		if i < 0 {
			parts = append(parts, text)
		} else {
			parts[i] = text
		}
	}
	for i, part := range parts {
		parts[i] = strings.TrimRight(part, "\n") + "\n"
	}
	return strings.Join(append([]string{header(m)}, parts...), sectionMark)
}

func header(m machine) string {
	return fmt.Sprintf(`# Benchmarks

Written by `+"`make bench`, `make bench-idle`, `make bench-libvirt` and `make bench-path`"+`, last on
%s: %s, %d cores, Linux %s, %s.
Each measurement has throw-away hosts of its own (network namespaces with real
bridges, a real dbus-daemon, real packets), and its networks are like libvirt's
default one: NAT, an IPv4 /24, DHCP. Times are medians, in brackets the 95th
percentile. "Load" is the machine's load average before and after, which other
work on it is part of.
`, m.date, m.cpu, m.cores, m.kernel, m.goVersion)
}

func (s *section) markdown(m machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\n| | measured | limit |\n|---|---|---|\n", s.title, s.how)
	for _, row := range s.rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.what, row.value, strings.TrimSpace(verdict(row, "%s: %s")))
	}
	fmt.Fprintf(&b, "\nLoad: %s, on %s.\n", s.load, m.date)
	return b.String()
}

// machine is what the figures were measured on.
type machine struct {
	date, cpu, kernel, goVersion string
	cores                        int
}

func thisMachine() machine {
	m := machine{date: time.Now().Format(time.DateOnly), cpu: "unknown CPU", goVersion: runtime.Version(), cores: runtime.NumCPU()}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				m.cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// loadAverage returns the machine's load average of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// times is a series of measurements.
type times []time.Duration

// quantile returns the value that the share q of the series does not exceed.
func (t times) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (t times) median() time.Duration { return t.quantile(0.5) }

func (t times) String() string {
	return fmt.Sprintf("%s (%s)", milliseconds(t.median()), milliseconds(t.quantile(0.95)))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
