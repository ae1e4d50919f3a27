package neighbour

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

const (
	attempts     = 10
	attemptPause = 2 * time.Millisecond
)

// chainSet identifies the chains of a variant of iptables and a family.
type chainSet struct {
	variant xtables.Variant
	ipv6    bool
}

func (c chainSet) name() string { return xtables.Name(c.ipv6, c.variant) }

// find finds what libvirt left, and returns the script that removes it and the
// programs that can run it.
func (c chainSet) find(ctx context.Context, t targets, chains bool) (p xtables.Programs, script string, f finding, err error) {
	if p, err = xtables.FindVariant(ctx, c.ipv6, c.variant); err != nil {
		return p, "", f, fmt.Errorf("looking at what libvirt left with %s: %w: install iptables", c.name(), err)
	}
	tables, err := p.List(ctx)
	if err != nil {
		return p, "", f, err
	}
	script, f = removal(tables, c.ipv6, t, chains)
	f.where = c.name()
	return p, script, f, nil
}

// remove removes what libvirt left. Each table changes atomically; if another
// program was faster, it lists the rules again and retries.
func (c chainSet) remove(ctx context.Context, t targets, chains bool) (done finding, err error) {
	done.where = c.name()
	for attempt := range attempts {
		p, script, f, err := c.find(ctx, t, chains)
		if err != nil || script == "" {
			done.kept = f.kept
			return done, err
		}
		if err = p.Do(ctx, script); err == nil {
			return f, nil
		}
		if attempt == attempts-1 || !pause(ctx, attemptPause) {
			return done, errors.Join(fmt.Errorf("removing what libvirt left with %s: %w", c.name(), err), ctx.Err())
		}
	}
	return done, err
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// hasLegacy reports whether the kernel has tables of the legacy variant in which
// libvirt has chains.
func hasLegacy(ipv6 bool) (bool, error) {
	tables, err := xtables.LegacyTables(ipv6)
	return slices.ContainsFunc(tables, isLibvirtTable), err
}

// isHomeTable reports whether libvirt has chains in a table of that name.
func isLibvirtTable(table string) bool {
	return table == "filter" || table == "nat" || table == "mangle"
}
