// Package systemd is the service's side of the service manager: readiness,
// reloads and the watchdog, and a log handler that speaks to the journal. All
// of it does nothing, or falls back to plain text, where systemd is not there.
package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that start-up or a reload is complete. The status is shown by
// systemctl status; it may be "".
func Ready(status string) error {
	return notify(daemon.SdNotifyReady + statusLine(status))
}

// Status shows a new status and says nothing else.
func Status(status string) error {
	return notify(strings.TrimPrefix(statusLine(status), "\n"))
}

// Reloading says that a reload begins, which Ready ends. systemd 253 and newer
// match the two by the time stamp; older ones ignore it.
func Reloading() error {
	stamp := strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n")
	return notify(daemon.SdNotifyReloading + "\n" + stamp)
}

// Stopping says that the service ends.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// statusLine keeps a status on its line: what follows a newline would be
// another assignment.
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

// Watchdog tells systemd three times in each watchdog interval that the service
// works, as long as alive says so, until ctx ends. Without a watchdog in the
// unit it returns at once. alive must ask the part of the service that does the
// work: systemd restarts the service where the answer is no, or does not come.
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
