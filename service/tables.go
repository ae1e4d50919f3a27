package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
)

const (
	// touchPause is how long foreign changes of the table gather.
	touchPause = 50 * time.Millisecond
	// touchShare keeps the answer to a program that will not leave the table
	// alone to one part in so many of the time.
	touchShare = 10
)

// Table tells of other programs' changes of the service's own nft table.
type Table interface {
	Touched() <-chan struct{}
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
		s.withLock(ctx, s.mendTable)
		next = time.Now().Add(touchShare * time.Since(begin))
	}
}

func (s *Service) mendTable(ctx context.Context) {
	if s.active.Name() != choice.NFTables {
		return
	}
	s.Log.Debug("another program changed the table: comparing it")
	s.mendRules(ctx, "another program had changed or flushed its rules")
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
