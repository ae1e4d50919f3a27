// Package tests holds the tests that need whole hosts: the real programs on a
// real bus, with real packets, beside the real firewalld.
package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs is the directory of the programs under test, built once for all
// tests of this run.
var programs string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if programs = os.Getenv("VIRTFIREWALLD_TEST_PROGRAMS"); programs != "" {
		return m.Run() // built elsewhere, for a machine without a compiler
	}
	dir, err := os.MkdirTemp("", "virtfirewalld-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = dir
	for _, name := range []string{"virtfirewalld", "virtfirewallctl"} {
		args := []string{"build", "-o", filepath.Join(dir, name)}
		if raceEnabled {
			args = append(args, "-race") // the daemon finds its own races too
		}
		build := exec.Command("go", append(args, "../cmd/"+name)...)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building %s: %v\n%s", name, err, out)
			return 1
		}
	}
	return m.Run()
}
