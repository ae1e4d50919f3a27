package service

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

const (
	// touchPause is how long foreign changes of the table gather.
	touchPause = 50 * time.Millisecond
	// touchShare keeps the answer to a program that will not leave the table
	// alone to one part in so many of the time.
	touchShare = 10
)

// Table tells of other programs' changes of the service's own nft table, as
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

// followTable puts the rules back after another program's flush: a table can be
// protected from it only since Linux 6.9, and need not be (own_table).
func (s *Service) followTable(ctx context.Context) {
	var next time.Time // not to be looked at before
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Table.Touched():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(touchPause, time.Until(next))):
		}
		begin := time.Now()
		touches := s.Table.Take()
		s.withLock(ctx, func(ctx context.Context) { s.mendTable(ctx, culprits(touches)) })
		next = time.Now().Add(touchShare * time.Since(begin))
	}
}

func (s *Service) mendTable(ctx context.Context, by string) {
	if s.active.Name() != choice.NFTables {
		return
	}
	s.Log.Debug("another program changed the table: comparing it", "program", by)
	s.mendRules(ctx, by+" had changed or flushed its rules")
}

// mendRules puts rules back that are not as they should be. The caller holds
// the lock.
func (s *Service) mendRules(ctx context.Context, cause string) {
	damaged, err := s.active.Sync(ctx, s.members())
	if err != nil {
		s.complain(ctx, slog.LevelError, "putting rules back", err, "cause", cause)
		s.kick()
		return
	}
	if len(damaged) == 0 {
		return
	}
	mended := make(map[string]string, len(damaged))
	for _, name := range damaged {
		mended[name] = cause
	}
	s.afterRepair(ctx, mended)
}
