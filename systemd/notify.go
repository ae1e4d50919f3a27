// Package systemd connects the service with the service manager: readiness,
// reloads and the watchdog, and a log handler for the journal. All of it does
// nothing, or falls back to plain text, where systemd does not run.
package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready notifies systemd that start-up or a reload is complete. systemctl status
// shows the status; it may be "".
func Ready(status string) error {
	return notify(daemon.SdNotifyReady + statusLine(status))
}

// Status sets the status that systemctl status shows, and nothing else.
func Status(status string) error {
	return notify(strings.TrimPrefix(statusLine(status), "\n"))
}

// Reloading notifies systemd that a reload begins, which Ready ends. systemd 253
// and newer match the two by the time stamp; older ones ignore it.
func Reloading() error {
	stamp := strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n")
	return notify(daemon.SdNotifyReloading + "\n" + stamp)
}

// Stopping notifies systemd that the service ends.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// statusLine returns the assignment of a status, without newlines in it: the
// text after one would be another assignment.
func statusLine(status string) string {
	if status == "" {
		return ""
	}
	return "\nSTATUS=" + strings.Join(strings.Fields(status), " ")
}

func notify(state string) error {
	if state == "" {
		return nil
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}

// Watchdog notifies systemd three times in each watchdog interval that the
// service works, as long as alive returns true, until ctx ends. Without a
// watchdog in the unit it returns at once. alive must check the part of the
// service that does the work: systemd restarts the service if alive returns
// false, or does not return.
func Watchdog(ctx context.Context, alive func(context.Context) bool) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading the watchdog's interval: %w", err)
	}
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(max(interval/3, time.Millisecond))
	defer tick.Stop()
	for {
		if alive(ctx) {
			if err := notify(daemon.SdNotifyWatchdog); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
