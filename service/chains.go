package service

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/program"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Chains watches iptables for other programs.
type Chains interface {
	// Watch begins to watch what the variants of a backend need.
	Watch(variants xtables.Variants) (ChainWatch, error)
}

// ChainWatch is an open watch.
type ChainWatch interface {
	// NFT receives on changes of nf_tables, Legacy on calls of the legacy variant;
	// nil for a variant that is not watched.
	NFT() <-chan struct{}
	Legacy() <-chan struct{}
	// Take returns other programs' changes of nf_tables since the last time.
	Take() []watch.Touch
	Close() error
}

// HostChains is iptables of this host.
type HostChains struct {
	Tables *watch.Tables
	// Started are the service's own calls of iptables, which are no news. The
	// legacy variant's cannot be told from others'.
	Started *program.Started
	Log     *slog.Logger
}

// Watch begins to watch what the variants of a backend need: nf_tables' own
// events, and the lock of the legacy variant, which announces no changes.
func (c HostChains) Watch(variants xtables.Variants) (ChainWatch, error) {
	w := &hostChainWatch{started: c.Started}
	if variants.Has(xtables.VariantNFT) {
		w.tables = c.Tables.Subscribe(iptablesTables()...)
	}
	if !variants.Has(xtables.VariantLegacy) {
		return w, nil
	}
	var err error
	if w.lock, err = watch.WatchLock(xtables.LockFile, c.Log); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// iptablesTables are the tables that hold the backend's chains.
func iptablesTables() (out []watch.TableID) {
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for _, name := range []string{"filter", "nat", "mangle"} {
			out = append(out, watch.TableID{Family: family, Name: name})
		}
	}
	return out
}

type hostChainWatch struct {
	tables  *watch.Touches
	lock    *watch.Lock
	started *program.Started
}

func (w *hostChainWatch) NFT() <-chan struct{} {
	if w.tables == nil {
		return nil
	}
	return w.tables.Touched()
}

func (w *hostChainWatch) Legacy() <-chan struct{} {
	if w.lock == nil {
		return nil
	}
	return w.lock.Touched()
}

func (w *hostChainWatch) Take() (foreign []watch.Touch) {
	if w.tables == nil {
		return nil
	}
	for _, t := range w.tables.Take() {
		// Programs' netlink ports are their process IDs, as long as those are free.
		if !w.started.Has(int(t.Port)) {
			foreign = append(foreign, t)
		}
	}
	return foreign
}

func (w *hostChainWatch) Close() error {
	if w.tables != nil {
		w.tables.Close()
	}
	if w.lock != nil {
		return w.lock.Close()
	}
	return nil
}
