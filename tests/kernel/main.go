// Command kernel runs tests on another kernel than the machine's: Debian's own
// 6.1, in a virtual machine without hardware acceleration. The guest has the machine's
// own files, read-only, below a layer in memory, and makes throw-away hosts as
// the machine does. tests/kernel/setup.sh gets the kernel and qemu.
//
//	go run ./tests/kernel [-run PATTERN] [-package FOLDER] [-factor N]
//	go run ./tests/kernel -instructions
//
// With -instructions it runs no tests. It counts the instructions that a packet
// takes the kernel (tests/bench/instructions.go).
//
// Started as pid 1, which is what the guest does, it is the guest's init.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	cache   string // what setup.sh made
	pattern string
	packets bool
	folder  string
	factor  float64
	limit   time.Duration

	// instructions makes the guest's clock count instructions: one is a
	// nanosecond.
	instructions bool
}

func main() {
	if os.Getpid() == 1 {
		guestMain()
	}
	o := options{cache: os.Getenv("VIRTFIREWALLD_TEST_KERNEL")}
	if o.cache == "" {
		o.cache = "/var/lib/virtfirewalld-tests/kernel"
	}
	flag.StringVar(&o.pattern, "run", "", "run only the tests that match, as go test's -run; with -package")
	flag.StringVar(&o.folder, "package", "", "run only the tests of this folder, such as tests/packets or service/host")
	flag.BoolVar(&o.packets, "packets", false, "run the packet tests too, which take minutes")
	flag.BoolVar(&o.instructions, "instructions", false, "count the instructions of a packet")
	flag.Float64Var(&o.factor, "factor", 4, "how much longer than on the machine a test waits")
	flag.DurationVar(&o.limit, "timeout", 20*time.Minute, "end after this time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if _, err := os.Stat(filepath.Join(o.cache, "complete")); err != nil {
		return fmt.Errorf("the other kernel is missing: run tests/kernel/setup.sh as root (%w)", err)
	}
	plan, err := choose(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "virtfirewalld-kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	if err := prepare(ctx, plan, dir); err != nil {
		return err
	}
	fmt.Printf("==> built in %.0f s\n", time.Since(began).Seconds())
	var errs []error
	for _, suites := range plan {
		errs = append(errs, boot(ctx, o, job{Factor: o.factor, Limit: o.limit * 4 / 5, Suites: suites}, dir))
	}
	return errors.Join(errs...)
}

// prepare builds what runs in the guests into dir: the programs, the packages'
// tests, and this very command as init.
func prepare(ctx context.Context, plan [][]suite, dir string) error {
	if _, err := os.Stat("tests/kernel"); err != nil {
		return errors.New("this runs from the top of the source tree")
	}
	for _, program := range []string{"./cmd/virtfirewalld", "./cmd/virtfirewallctl", "./tests/kernel"} {
		if err := build(ctx, "build", "-o", dir+"/", program); err != nil {
			return err
		}
	}
	built := map[string]bool{}
	for _, s := range slices.Concat(plan...) {
		binary := filepath.Join(dir, s.binary())
		if s.Program != nil {
			if err := build(ctx, "build", "-o", binary, "./"+s.Folder); err != nil {
				return err
			}
			continue
		}
		if !built[s.Folder] {
			if err := build(ctx, "test", "-tags", "modules", "-c", "-o", binary, "./"+s.Folder); err != nil {
				return err
			}
		}
		built[s.Folder] = true
		if err := s.check(ctx, binary); err != nil {
			return err
		}
	}
	return nil
}

// check finds tests of the plan that no longer exist: they would match nothing, and
// running nothing passes.
func (s suite) check(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, binary, "-test.list=.")
	cmd.Env = append(os.Environ(), "VIRTFIREWALLD_TEST_PROGRAMS="+filepath.Dir(binary))
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the tests of %s: %w", s.Folder, err)
	}
	there := strings.Split(string(out), "\n")
	for _, name := range s.Tests {
		if !slices.Contains(there, name) {
			return fmt.Errorf("%s has no test %s: put tests/kernel/plan.go right", s.Folder, name)
		}
	}
	return nil
}

func build(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{args[0], "-buildvcs=false"}, args[1:]...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", args[len(args)-1], err, out)
	}
	return nil
}
