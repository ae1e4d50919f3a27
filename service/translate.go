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

// connections has the networks whose connections may have begun before their
// translation was there. They are looked for in the background: the kernel walks
// the connections of the whole machine, which takes it 20 ms where it has
// memory for many, and looking once for several networks costs no more.
type connections struct {
	host     HostNeeds
	networks *networks
	log      logger
	workers  *workers

	mu    sync.Mutex
	early map[string]bool // networks
}

// take returns the networks to look for, and forgets them.
func (cs *connections) take() map[string]bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	names := cs.early
	cs.early = nil
	return names
}

// retranslate has connections of these networks forgotten that began before
// their translation was there, so that their next packet begins them again.
func (cs *connections) retranslate(nets []network.Network) {
	if len(nets) == 0 {
		return
	}
	cs.mu.Lock()
	if cs.early == nil {
		cs.early = make(map[string]bool, len(nets))
	}
	for _, n := range nets {
		cs.early[n.Name] = true
	}
	cs.mu.Unlock()
	cs.workers.connections.trigger()
}

// forget does once what retranslate asks for, for the networks as they are by now.
func (cs *connections) forget() {
	names := cs.take()
	var nets []host.Guests
	for name := range names {
		if m, ok := cs.networks.Get(name); ok && m.translates() {
			nets = append(nets, host.Guests{Network: m.member().Network, Index: m.bridge.index})
		}
	}
	if len(nets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	defer cancel()
	if err := cs.host.Retranslate(ctx, nets); err != nil {
		cs.log.Warn("connections that began before their translation may go on untranslated", "error", err)
	}
}
