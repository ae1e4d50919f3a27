package neighbour

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Foreign is what filters beside the service's own table: the tables of nf_tables, and
// of iptables of both variants.
type Foreign struct {
	tables *watch.Tables
	log    *slog.Logger
}

// NewForeign returns it. Changes of the nft variant come from tables.
func NewForeign(tables *watch.Tables, log *slog.Logger) *Foreign { return &Foreign{tables, log} }

// filtering are the tables of iptables that filter: what nat does lets pass.
func filtering() []string { return []string{"raw", "mangle", "filter", "security"} }

// Follow calls changed whenever the rules may be others than before, until the context
// ends. The kernel announces changes of nf_tables, and iptables-legacy takes a lock.
func (f *Foreign) Follow(ctx context.Context, changed func()) error {
	touches := f.tables.Subscribe()
	defer touches.Close()
	lock, err := watch.WatchLock(xtables.LockFile, f.log)
	if err != nil {
		return err
	}
	defer func() {
		if err := lock.Close(); err != nil {
			f.log.Warn("ending the watch of iptables-legacy", "error", err)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-touches.Touched():
			touches.Take()
		case <-lock.Touched():
		}
		changed()
	}
}

// Tables reads the rules. It runs no program where iptables has none.
func (f *Foreign) Tables(ctx context.Context) (tables []analysis.Table, err error) {
	var errs []error
	known := make(map[tableID]bool)
	for _, ipv6 := range []bool{false, true} {
		for _, variant := range []xtables.Variant{xtables.VariantNFT, xtables.VariantLegacy} {
			some, err := filters(ctx, ipv6, variant)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			tables = append(tables, some...)
			for _, t := range some {
				if variant == xtables.VariantNFT {
					known[tableID{familyOf(ipv6), t.Name}] = true
				}
			}
		}
	}
	native, err := nativeTables(ctx, known)
	return append(tables, native...), errors.Join(append(errs, err)...)
}

// filters returns the rules of one variant and family.
func filters(ctx context.Context, ipv6 bool, variant xtables.Variant) ([]analysis.Table, error) {
	name := xtables.Name(ipv6, variant)
	has, err := hasFilters(ctx, ipv6, variant)
	if err != nil || !has {
		return nil, err
	}
	programs, err := xtables.FindVariant(ctx, ipv6, variant)
	if err != nil && variant == xtables.VariantNFT {
		return nil, nil // its tables are read as nft's then, as far as those tell
	}
	if err != nil {
		return nil, fmt.Errorf("reading the rules of %s: %w: install iptables", name, err)
	}
	listing, err := programs.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the rules of %s: %w", name, err)
	}
	return analysis.FromIptables(listing, ipv6, name), nil
}

// hasFilters reports whether the kernel has any table of a variant that filters. The
// programs of the legacy variant would make the tables that they list.
func hasFilters(ctx context.Context, ipv6 bool, variant xtables.Variant) (has bool, err error) {
	filters := func(table string) bool { return slices.Contains(filtering(), table) }
	if variant == xtables.VariantLegacy {
		tables, err := xtables.LegacyTables(ipv6)
		return slices.ContainsFunc(tables, filters), err
	}
	conn, err := nfnl.Open(ctx, 0)
	if err != nil {
		return false, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = conn.Dump(unix.NFT_MSG_GETTABLE, familyOf(ipv6), nil, func(a nfnl.Attributes) {
		has = has || filters(a.Text(unix.NFTA_TABLE_NAME))
	})
	return has, err
}
