package service

import (
	"context"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const (
	// touchPause is how long foreign changes of the table gather.
	touchPause = 50 * time.Millisecond
	// touchShare keeps the answer to a program that will not leave the table
	// alone to one part in so many of the time.
	touchShare = 10
)

// Table reports other programs' changes of the service's own nft table, as
// watch.Touches does.
type Table interface {
	Touched() <-chan struct{}
	Take() []watch.Touch
}

// culprits names the programs behind changes, each once: "nft (pid 812)".
func culprits(touches []watch.Touch) string {
	var names []string
	seen := map[string]bool{}
	for _, t := range touches {
		if name := t.String(); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return watch.Touch{}.String()
	}
	return strings.Join(names, " and ")
}

// tableWorker puts the rules back after another program's flush: a table can be
// protected from it only since Linux 6.9, and need not be (own_table).
func (rs *rules) tableWorker() *worker {
	var again time.Time
	var touches []watch.Touch // since all was right, the last one of each program
	return &worker{events: rs.table.Touched(), pause: touchPause, share: touchShare, work: func(ctx context.Context) time.Time {
		touches = lastTouches(touches, rs.table.Take())
		rs.lock.during(ctx, func(ctx context.Context) {
			again = rs.mendTable(ctx, touches)
			if rs.repairs.whole() {
				touches = nil
			}
		})
		return again
	}}
}

// mendTable puts rules back in the table, and returns when to look at it again
// without an event. The caller holds the change lock.
func (rs *rules) mendTable(ctx context.Context, touches []watch.Touch) (again time.Time) {
	if rs.active.Name() != choice.NFTables {
		return time.Time{}
	}
	rs.log.Debug("another program changed the table: comparing it", "program", culprits(touches))
	return rs.answer(ctx, opponentOf(touches), culprits(touches)+" had changed or flushed its rules")
}
