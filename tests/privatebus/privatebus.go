// Package privatebus runs a dbus-daemon of a test's own, without a host around
// it. It needs no root.
package privatebus

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Bus is a running dbus-daemon.
type Bus struct {
	// Address is that of a socket in the abstract name space: users who may not
	// enter the test's directory reach it, too.
	Address string
	daemon  *os.Process
}

// everything lets every client own every name and call every other.
const everything = `
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>`

// system is Debian's system.conf in short: nobody owns a name, and nobody calls,
// but where a policy allows it.
const system = `
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_destination="org.freedesktop.DBus"/>`

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">%s
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    %s
  </policy>
%s</busconfig>
`

// Start runs a bus on which everybody may do everything but what these elements
// of its policy deny.
func Start(t testing.TB, denials ...string) *Bus {
	t.Helper()
	return run(t, everything, strings.Join(denials, "\n    "), "")
}

// StartSystem runs a bus with the policy of a system bus, and these files of
// policies beside it.
func StartSystem(t testing.TB, policies ...string) *Bus {
	t.Helper()
	var includes strings.Builder
	for _, file := range policies {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&includes, "  <include>%s</include>\n", path)
	}
	return run(t, system, "", includes.String())
}

func run(t testing.TB, policy, denials, includes string) *Bus {
	t.Helper()
	b := &Bus{Address: fmt.Sprintf("unix:abstract=virtfirewalld-test-%d-%d", os.Getpid(), rand.Uint64())}
	file := filepath.Join(t.TempDir(), "bus.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, b.Address, policy, denials, includes), 0o600); err != nil {
		t.Fatal(err)
	}
	// The bus does not outlive the test's process, however that ends: the shell's
	// standard input ends with it.
	cmd := exec.Command("sh", "-c", `dbus-daemon --config-file="$1" --nofork --nopidfile --print-pid & read -r _; kill -KILL $!; wait`, "sh", file)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	leash, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leash.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("dbus-daemon said: %s", &complaints)
		}
	})
	// It prints this when it listens.
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		err = b.is(line)
	}
	if err != nil {
		t.Fatalf("starting dbus-daemon (install the package dbus): %v", err)
	}
	return b
}

func (b *Bus) is(pid string) error {
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil {
		return err
	}
	b.daemon, err = os.FindProcess(n)
	return err
}

// Signal sends a signal to the daemon.
func (b *Bus) Signal(sig syscall.Signal) error { return b.daemon.Signal(sig) }
