package systemd_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// manager is a fake of the service manager's socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// nextMessage returns the next message to the manager, or "" for none within the time.
func nextMessage(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	n, err := conn.Read(text)
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	return string(text[:n])
}

func TestNotify(t *testing.T) {
	conn := manager(t)
	for _, test := range []struct {
		name string
		call func() error
		want string
	}{
		{"ready", func() error { return systemd.Ready("") }, `^READY=1$`},
		{"ready with a status", func() error { return systemd.Ready("3 networks") }, `^READY=1\nSTATUS=3 networks$`},
		{"a status that would say more", func() error { return systemd.Ready("a\nSTOPPING=1") }, `^READY=1\nSTATUS=a STOPPING=1$`},
		{"status", func() error { return systemd.Status("busy") }, `^STATUS=busy$`},
		{"reloading", systemd.Reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`},
		{"stopping", systemd.Stopping, `^STOPPING=1$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.call(); err != nil {
				t.Fatal(err)
			}
			if got := nextMessage(t, conn, 5*time.Second); !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("the manager was told %q, not %q", got, test.want)
			}
		})
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemd.Ready("3 networks"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := systemd.Ready("3 networks"); err == nil {
		t.Error("a socket that nobody reads is no error")
	}
}

func TestWatchdog(t *testing.T) {
	defer goleak.VerifyNone(t)
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(context.Background())
	var alive atomic.Bool
	alive.Store(true)
	ended := make(chan error, 1)
	go func() { ended <- systemd.Watchdog(ctx, func(context.Context) bool { return alive.Load() }) }()
	for range 3 {
		if got := nextMessage(t, conn, 5*time.Second); got != "WATCHDOG=1" {
			t.Fatalf("the manager was told %q", got)
		}
	}
	alive.Store(false)
	nextMessage(t, conn, 30*time.Millisecond) // one that was under way
	if got := nextMessage(t, conn, 200*time.Millisecond); got != "" {
		t.Errorf("the manager was told %q though the service does not work", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchdogOff(t *testing.T) {
	asked := func(context.Context) bool { t.Error("the service was asked"); return true }
	t.Setenv("WATCHDOG_USEC", "")
	if err := systemd.Watchdog(t.Context(), asked); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "1") // meant for another process
	if err := systemd.Watchdog(t.Context(), asked); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := systemd.Watchdog(t.Context(), asked); err == nil {
		t.Error("an interval that is no number is no error")
	}
}
