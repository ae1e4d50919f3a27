package service

import (
	"context"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// translationRest is how long networks gather after a look at the connections.
const translationRest = 50 * time.Millisecond

// untranslated are the networks whose connections may have begun before their
// translation was there. They are looked for beside the calls: the kernel walks
// the connections of the whole machine, which takes it 20 ms where it has
// memory for many, and looking once for several networks costs no more.
type untranslated struct {
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
	s.workers.connections.trigger()
}

// connectionWorker does what retranslate asks for, also that which is left to do
// when the service ends.
func (s *Service) connectionWorker() *worker {
	return &worker{
		signal: newSignal(), rest: translationRest,
		work: func(context.Context) (never time.Time) { s.forgetUntranslated(); return never },
		last: s.forgetUntranslated,
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
