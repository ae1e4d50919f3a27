package service

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// behind is a link monitor that cannot follow the host.
type behind struct {
	monitor
	limited bool
}

func (b *behind) Sync(ctx context.Context) error {
	if _, b.limited = ctx.Deadline(); !b.limited {
		return errors.New("a call would wait for ever")
	}
	<-ctx.Done()
	return ctx.Err()
}

// monitor is Links under a name that differs from its methods'.
type monitor interface{ Links }

// TestSeeHostGivesUp: if the host's links never stop changing, calls still do not
// wait forever.
func TestSeeHostGivesUp(t *testing.T) {
	links := &behind{}
	v := &hostView{hostLinks: links, log: logger{slog.New(slog.DiscardHandler)}}
	v.seeHost(context.Background())
	if !links.limited {
		t.Error("the wait for the link monitor has no bound")
	}
}
