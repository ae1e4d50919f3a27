package servicetest

import (
	"context"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Foreign is other programs' rules, none at first.
type Foreign struct {
	changed chan struct{}

	mu   sync.Mutex
	save string
	err  error
	read int
}

// NewForeign returns a host without rules.
func NewForeign() *Foreign { return &Foreign{changed: make(chan struct{}, 1)} }

// Change sets the rules, as iptables-save prints them, or the error of reading them.
func (f *Foreign) Change(save string, err error) {
	f.mu.Lock()
	f.save, f.err = save, err
	f.mu.Unlock()
	f.changed <- struct{}{}
}

// Read returns how often the rules were read.
func (f *Foreign) Read() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read
}

// Follow calls changed after each Change.
func (f *Foreign) Follow(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
			changed()
		}
	}
}

// Tables returns the rules, as those of IPv4.
func (f *Foreign) Tables(context.Context) ([]analysis.Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read++
	if f.err != nil {
		return nil, f.err
	}
	listing, err := xtables.Parse(f.save)
	return analysis.FromIptables(listing, false, "iptables-nft"), err
}
