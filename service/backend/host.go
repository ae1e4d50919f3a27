package backend

import (
	"context"
	"os/exec"
	"sync/atomic"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Probed is a backend that can test whether the host can hold its rules.
type Probed interface {
	Backend
	Probe(ctx context.Context) error
}

// Host holds the two backends of a host.
type Host struct {
	NFTables Probed
	IPTables interface {
		Probed
		Variants() xtables.Variants
	}

	// works is set once the probe of nftables has passed: the kernel does not lose
	// it, and each probe is two transactions that every monitor sees.
	works atomic.Bool
}

// Get returns a backend by name.
func (h *Host) Get(name string) Backend {
	if name == choice.IPTables {
		return h.IPTables
	}
	return h.NFTables
}

// Available probes what the host has. iptables is probed only if it may be chosen:
// its nft variant leaves tables behind that it created for the probe, on a host that
// may want none. Otherwise only its programs are looked up.
func (h *Host) Available(ctx context.Context, c choice.Configured) choice.Available {
	var a choice.Available
	if !h.works.Load() {
		a.NFTables = h.NFTables.Probe(ctx)
		h.works.Store(a.NFTables == nil)
	}
	_, err := exec.LookPath("nft")
	a.NFT = err == nil
	asked := c.Own.Value == choice.IPTables || (c.Own.Value != choice.NFTables && c.Libvirt.Value == choice.IPTables)
	if asked || a.NFTables != nil || !a.NFT {
		a.IPTables = h.IPTables.Probe(ctx)
		a.Variant = h.IPTables.Variants().String()
		return a
	}
	for _, program := range []string{"iptables", "iptables-restore", "ip6tables", "ip6tables-restore"} {
		if _, err := exec.LookPath(program); err != nil {
			a.IPTables = err
		}
	}
	return a
}

// Variants returns those of iptables that hold the service's own rules while
// iptables is the backend.
func (h *Host) Variants() xtables.Variants { return h.IPTables.Variants() }
