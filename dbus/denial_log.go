package dbus

import (
	"log/slog"
	"sync"
	"time"
)

// A user's denied calls may write this many lines into the log at once, and one
// more after each pause.
const (
	denialLines = 10
	denialPause = 10 * time.Second
	// denialUsers bounds the memory; users beyond it share one allowance.
	denialUsers = 1024
)

// denialLog logs who was denied what, rate-limited per user.
type denialLog struct {
	log *slog.Logger

	mu    sync.Mutex
	users map[uint32]*allowance
}

// allowance is how many lines a user has left, and how many were skipped.
type allowance struct {
	lines   int
	since   time.Time
	skipped int
}

func newDenialLog(log *slog.Logger) *denialLog {
	return &denialLog{log: log, users: make(map[uint32]*allowance)}
}

func (d *denialLog) write(c *call, details map[string]string, err error) {
	skipped, ok := d.allow(c.user, time.Now())
	if !ok {
		return
	}
	args := []any{"method", c.member, "user", c.user, "caller", c.sender, "error", err}
	for _, k := range []string{"network", "bridge", "zone"} {
		if v := details[k]; v != "" {
			args = append(args, k, truncate(v))
		}
	}
	if skipped > 0 {
		args = append(args, "unwritten", skipped)
	}
	d.log.Info("denied a call", args...)
}

// truncate keeps a caller's text from filling the log.
func truncate(s string) string {
	const most = 128
	if len(s) > most {
		return clean(s[:most]) + "..."
	}
	return s
}

// allow reports whether a line about a user may be written, and how many were
// skipped since the last one.
func (d *denialLog) allow(user uint32, now time.Time) (skipped int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.users[user]
	if a == nil {
		if len(d.users) >= denialUsers {
			user = 0 // root is never denied, so its entry is free
			a = d.users[user]
		}
		if a == nil {
			a = &allowance{lines: denialLines, since: now}
			d.users[user] = a
		}
	}
	if more := int(now.Sub(a.since) / denialPause); more > 0 {
		a.lines, a.since = min(a.lines+more, denialLines), now
	}
	if a.lines == 0 {
		a.skipped++
		return 0, false
	}
	a.lines--
	skipped, a.skipped = a.skipped, 0
	return skipped, true
}
