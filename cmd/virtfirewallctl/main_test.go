package main_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/cli"
	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
)

var update = flag.Bool("update", false, "write what the program prints into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"virtfirewallctl": func() {
			os.Exit(cli.Main("9.9.9", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs each script against a fake service on a bus of its own.
func TestScripts(t *testing.T) {
	run(t, "testdata/script", func(t testing.TB, env *testscript.Env) {
		address := privatebus.Start(t).Address
		env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
		env.Values[fakeKey{}] = newFake(t, address)
	})
}

// TestDenied runs scripts on a bus whose policy refuses a call.
func TestDenied(t *testing.T) {
	run(t, "testdata/denied", func(t testing.TB, env *testscript.Env) {
		address := privatebus.Start(t, `<deny send_destination="`+contract+`" send_interface="`+contract+`" send_member="Reload"/>`).Address
		env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
		env.Values[fakeKey{}] = newFake(t, address)
	})
}

// TestNoService runs scripts on a bus without the service.
func TestNoService(t *testing.T) {
	run(t, "testdata/noservice", func(t testing.TB, env *testscript.Env) {
		env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", privatebus.Start(t).Address)
	})
}

type fakeKey struct{}

func run(t *testing.T, dir string, setup func(testing.TB, *testscript.Env)) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// The race detector delays the end of each program by a second.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			setup(env.T().(testing.TB), env)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"called":     called,
			"emit":       emit,
			"subscribed": subscribed,
			"await":      await,
			"finds":      finds,
		},
	})
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("running %v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v ended with %d, not %d", args[1:], got, want)
	}
}

// called CALL checks that the fake service had that changing call.
func called(ts *testscript.TestScript, _ bool, args []string) {
	if record, ok := ts.Value(fakeKey{}).(*fake).calledWith(args[0]); !ok {
		ts.Fatalf("no call %q among %q", args[0], record)
	}
}

// finds WHAT sets what the fake service returns from Diagnose.
func finds(ts *testscript.TestScript, _ bool, args []string) {
	f := ts.Value(fakeKey{}).(*fake)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = args[0]
}

// emit WHAT makes the fake service send signals.
func emit(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Value(fakeKey{}).(*fake).emit(args[0]))
}

// subscribed waits until a monitor listens.
func subscribed(ts *testscript.TestScript, _ bool, _ []string) {
	if !ts.Value(fakeKey{}).(*fake).awaitMonitor() {
		ts.Fatalf("no monitor subscribed")
	}
}

// await FILE PATTERN waits until a file that is being written matches.
func await(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[1])
	var text string
	found := eventually(func() bool {
		text = ts.ReadFile(args[0])
		return pattern.MatchString(text)
	})
	if !found {
		ts.Fatalf("%s never matched %q; it holds:\n%s", args[0], args[1], text)
	}
}
