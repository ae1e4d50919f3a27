// Command bench measures what the project promises to be measured, in
// throw-away hosts, and writes what it found into docs/benchmarks.md (-o). It ends
// with 0 only if every limit is kept. What takes minutes is measured only by name
// (-only).
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// measurement is one of those that can be chosen.
type measurement struct {
	name    string
	measure func(bin string, s *section) error
	apart   bool // it runs only when it is named
}

var measurements = []measurement{
	{name: "add", measure: measureAdd},
	{name: "add-waiting", measure: measureAddWaiting},
	{name: "add-persistent", measure: measureAddPersistent},
	{name: "add-firewalld", measure: measureAddFirewalld},
	{name: "firewalld-scale", measure: measureFirewalldScale},
	{name: "libvirt-firewalld", measure: measureFirewalldReleases, apart: true},
	{name: "iptables", measure: measureAddIptables},
	{name: "switch", measure: measureSwitch},
	{name: "path", measure: measurePath, apart: true},
	{name: "start", measure: measureStart},
	{name: "memory", measure: measureMemory},
	{name: "idle", measure: measureIdle, apart: true},
	{name: "activation", measure: measureActivation},
	{name: "reload", measure: measureReload},
	{name: "peers", measure: measurePeers},
	{name: "libvirt", measure: measureLibvirt, apart: true},
	{name: "instructions", measure: measureInstructions, apart: true}, // tests/kernel runs it
}

func main() {
	bin := flag.String("bin", "bin", "directory of the built programs")
	only := flag.String("only", "", "measure only what this regular expression matches")
	out := flag.String("o", "", "file whose sections to replace with what was measured")
	flag.Parse()
	if err := run(*bin, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(bin, only, out string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("reading -only: %w", err)
	}
	var r report
	for _, m := range measurements {
		if !chosen.MatchString(m.name) || (m.apart && only == "") {
			continue
		}
		s := &section{}
		before, began := loadAverage(), time.Now()
		if err := guarded(func() error { return m.measure(bin, s) }); err != nil {
			return fmt.Errorf("measuring %s: %w", m.name, err)
		}
		s.load = before + " to " + loadAverage()
		fmt.Printf("  (%s took %.0f s, load %s)\n", m.name, time.Since(began).Seconds(), s.load)
		r.sections = append(r.sections, s)
	}
	if out != "" {
		if err := r.write(out); err != nil {
			return err
		}
	}
	if n := r.missed(); n > 0 {
		return fmt.Errorf("%d limits were missed", n)
	}
	return nil
}

// write puts what was measured into a file.
func (r *report) write(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.WriteFile(path, []byte(r.update(string(old), thisMachine())), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nwritten: %s\n", path)
	return nil
}

// guarded turns the panics of package host into errors.
func guarded(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("setting up: %s", strings.TrimSpace(fmt.Sprint(r)))
		}
	}()
	return fn()
}
