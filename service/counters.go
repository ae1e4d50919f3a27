package service

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Totals are the counters as they were last seen. The kernel's own begin at
// zero when they are made, so these say what to begin at, and no client sees a
// counter go back, whatever happened to the table.
type Totals struct {
	mu   sync.Mutex
	last map[string]ruleset.Counters
}

// NewTotals begins with what an earlier run kept; the map is not used again.
func NewTotals(kept map[string]ruleset.Counters) *Totals {
	t := &Totals{last: maps.Clone(kept)}
	if t.last == nil {
		t.last = make(map[string]ruleset.Counters)
	}
	return t
}

// Of is what a network's counters must not fall below.
func (t *Totals) Of(network string) ruleset.Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[network]
}

// raise takes in what the kernel counted and returns the totals of all networks.
func (t *Totals) raise(seen map[string]ruleset.Counters) map[string]ruleset.Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, c := range seen {
		if high := highest(t.last[name], c); high != (ruleset.Counters{}) {
			t.last[name] = high
		}
	}
	return maps.Clone(t.last)
}

func highest(a, b ruleset.Counters) ruleset.Counters {
	return ruleset.Counters{
		FromGuestPackets: max(a.FromGuestPackets, b.FromGuestPackets), FromGuestBytes: max(a.FromGuestBytes, b.FromGuestBytes),
		ToGuestPackets: max(a.ToGuestPackets, b.ToGuestPackets), ToGuestBytes: max(a.ToGuestBytes, b.ToGuestBytes),
		RejectedFromGuestPackets: max(a.RejectedFromGuestPackets, b.RejectedFromGuestPackets),
		RejectedToGuestPackets:   max(a.RejectedToGuestPackets, b.RejectedToGuestPackets),
	}
}

// forget drops networks, and reports whether any had been counted.
func (t *Totals) forget(gone func(network string) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.last)
	maps.DeleteFunc(t.last, func(name string, _ ruleset.Counters) bool { return gone(name) })
	return len(t.last) < before
}

// counterKeeper reads the counters and keeps them over whatever happens to the
// kernel's own.
type counterKeeper struct {
	totals  *Totals
	files   Files
	backend func() backend.Backend
	log     logger
	workers *workers
	cache   counterCache
}

// counterCache spares the kernel a dump of all counters for each of many
// questions that come together: one counter costs as much as all of them. Its
// lock also keeps what is being read from outliving what is forgotten.
type counterCache struct {
	sync.Mutex
	at    time.Time
	value map[string]ruleset.Counters
}

const (
	counterCacheFor = 20 * time.Millisecond
	// counterSavePause is how long what clients have seen may be kept in memory
	// alone: a table lost within it, with the service killed, loses that much.
	counterSavePause = time.Second
)

// Counters are the contract's totals of a network.
func (s *Service) Counters(ctx context.Context, name string) (map[string]uint64, error) {
	if _, err := s.networks.known(name); err != nil {
		return nil, err
	}
	all, err := s.counters.read(ctx, counterCacheFor)
	if err != nil {
		return nil, errorf(ApplyFailed, "reading the counters: %w", err)
	}
	c := all[name]
	return map[string]uint64{
		"FromGuestPackets": c.FromGuestPackets, "FromGuestBytes": c.FromGuestBytes,
		"ToGuestPackets": c.ToGuestPackets, "ToGuestBytes": c.ToGuestBytes,
		"RejectedFromGuestPackets": c.RejectedFromGuestPackets, "RejectedToGuestPackets": c.RejectedToGuestPackets,
	}, nil
}

// read returns the totals of all networks, at most as old as age.
func (k *counterKeeper) read(ctx context.Context, age time.Duration) (map[string]ruleset.Counters, error) {
	c := &k.cache
	c.Lock()
	defer c.Unlock()
	if c.value != nil && time.Since(c.at) < age {
		return c.value, nil
	}
	seen, err := k.backend().Counters(ctx)
	if err != nil {
		return nil, err
	}
	c.value, c.at = k.totals.raise(seen), time.Now()
	k.workers.counters.trigger()
	return c.value, nil
}

// during does something that changes what the kernel's counters are, while nobody
// reads them.
func (k *counterKeeper) during(change func()) {
	k.cache.Lock()
	defer k.cache.Unlock()
	change()
	k.cache.value = nil
}

// restart resets a network's totals, as Replace means to.
func (k *counterKeeper) restart(ctx context.Context, name string) {
	k.cache.Lock()
	err := k.backend().ResetCounters(ctx, name)
	k.cache.Unlock()
	if err != nil {
		k.log.Warn("the replaced network's counters go on", "network", name, "error", err)
		return
	}
	k.forget(name)
}

// forget ends the totals of networks. What was kept of them goes at
// once: a network that comes later under the same name has its own.
func (k *counterKeeper) forget(names ...string) {
	k.cache.Lock()
	defer k.cache.Unlock()
	k.cache.value = nil
	if k.totals.forget(func(name string) bool { return slices.Contains(names, name) }) {
		k.save()
	}
}

func (k *counterKeeper) save() {
	if err := k.files.SaveCounters(k.totals.raise(nil)); err != nil {
		k.log.Warn("counters may go back if the service is killed and its table deleted", "error", err)
	}
}

// keep keeps what counters must not fall below before a change that
// takes a network's rules, and the kernel's counters with them, and leaves the
// network.
func (k *counterKeeper) keep(ctx context.Context, ts []transition) error {
	for _, t := range ts {
		if t.old != nil && t.old.hasRules && t.next != nil && (!t.next.hasRules || t.next.member().Iface == "") {
			totals, err := k.read(ctx, 0)
			if err != nil {
				return err
			}
			return k.files.SaveCounters(totals)
		}
	}
	return nil
}

// round keeps what clients have seen.
func (k *counterKeeper) round(context.Context) (never time.Time) {
	k.cache.Lock()
	defer k.cache.Unlock()
	k.save()
	return never
}
