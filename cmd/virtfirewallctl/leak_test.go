package main_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
	"github.com/virtfirewalld/virtfirewalld/tests/privatebus"
)

// TestClientEndsCleanly shows that a client leaves no goroutine behind, not
// even where the bus dies under a monitor.
func TestClientEndsCleanly(t *testing.T) {
	bus := privatebus.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address)
	f := newFake(t, bus.Address)
	before := goleak.IgnoreCurrent()

	c, err := client.Dial(t.Context(), client.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Networks(t.Context()); err != nil || len(n) != 2 {
		t.Errorf("%d networks, %v", len(n), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Monitor(ctx, func(client.Event) error { return nil }) }()
	if !f.awaitMonitor() {
		t.Fatal("the monitor did not subscribe")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("an interrupted monitor: %v", err)
	}
	if err := c.Monitor(ctx, func(client.Event) error { return nil }); err != nil {
		t.Errorf("a monitor that was interrupted while it began: %v", err)
	}
	go func() { ended <- c.Monitor(t.Context(), func(client.Event) error { return nil }) }()
	if !f.awaitMonitor() {
		t.Fatal("the second monitor did not subscribe")
	}
	if err := bus.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("a monitor whose bus died: %v", err)
	}
	c.Close()
	goleak.VerifyNone(t, before)
}
