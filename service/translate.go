package service

import (
	"context"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// translationPause is how long networks gather after a look at the connections.
const translationPause = 50 * time.Millisecond

// untranslated are the networks whose connections may have begun before their
// translation was there. They are looked for beside the calls: the kernel walks
// the connections of the whole machine, which takes it 20 ms where it has
// memory for many, and looking once for several networks costs no more.
type untranslated struct {
	wake signal

	mu       sync.Mutex
	networks map[string]bool
}

func (u *untranslated) take() map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := u.networks
	u.networks = nil
	return names
}

// retranslate has connections of these networks forgotten that began before
// their translation was there, so that their next packet begins them anew.
func (s *Service) retranslate(nets []network.Network) {
	if len(nets) == 0 {
		return
	}
	u := &s.early
	u.mu.Lock()
	if u.networks == nil {
		u.networks = make(map[string]bool, len(nets))
	}
	for _, n := range nets {
		u.networks[n.Name] = true
	}
	u.mu.Unlock()
	u.wake.trigger()
}

// translateEarly does what retranslate asks for, until the context ends and
// nothing is left to do.
func (s *Service) translateEarly(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			s.forgetUntranslated()
			return
		case <-s.early.wake:
		}
		s.forgetUntranslated()
		select {
		case <-ctx.Done():
		case <-time.After(translationPause):
		}
	}
}

// forgetUntranslated looks once, for the networks as they are by now.
func (s *Service) forgetUntranslated() {
	names := s.early.take()
	var nets []host.Guests
	for name := range names {
		if m, ok := s.registry.Get(name); ok && m.translates() {
			nets = append(nets, host.Guests{Network: m.member().Network, Index: m.bridge.index})
		}
	}
	if len(nets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	defer cancel()
	if err := s.Host.Retranslate(ctx, nets); err != nil {
		s.Log.Warn("connections that began before their translation may go on untranslated", "error", err)
	}
}
