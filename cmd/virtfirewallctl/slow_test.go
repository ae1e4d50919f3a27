package main_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/cli"
	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
)

// TestSlowCallSaysWhatItWaitsFor: on a terminal, and nowhere else.
func TestSlowCallSaysWhatItWaitsFor(t *testing.T) {
	address := privatebus.Start(t).Address
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	newFake(t, address)
	master, terminal := pseudoTerminal(t)
	slow := []string{"remove", "slow", "--timeout", "3s"} // is never answered
	if code := cli.Main("9.9.9", slow, &bytes.Buffer{}, &bytes.Buffer{}, terminal); code != cli.ExitUnreachable {
		t.Errorf("exit code %d", code)
	}
	if code := cli.Main("9.9.9", []string{"remove", "default"}, &bytes.Buffer{}, &bytes.Buffer{}, terminal); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
	terminal.Close()
	text, _ := io.ReadAll(master) // ends with an error, since the other end is closed
	want := "virtfirewallctl: waiting for virtfirewalld, which is still removing the network…\r\n" +
		"virtfirewallctl: removing the network: virtfirewalld did not answer in time\r\n"
	if got := string(text); got != want {
		t.Errorf("the terminal shows\n%swant\n%s", got, want)
	}
	var pipe bytes.Buffer
	cli.Main("9.9.9", slow, &bytes.Buffer{}, &bytes.Buffer{}, &pipe)
	if strings.Contains(pipe.String(), "waiting") {
		t.Errorf("without a terminal: %s", pipe.String())
	}
}

// pseudoTerminal returns both ends of a terminal.
func pseudoTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
