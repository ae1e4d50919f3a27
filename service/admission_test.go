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

// monitor has a name that is no method's.
type monitor interface{ Links }

// TestSeeHostGivesUp: a host whose links change without end keeps no call
// waiting for good.
func TestSeeHostGivesUp(t *testing.T) {
	links := &behind{}
	v := &hostView{hostLinks: links, log: logger{slog.New(slog.DiscardHandler)}}
	v.seeHost(context.Background())
	if !links.limited {
		t.Error("the wait for the link monitor has no bound")
	}
}
