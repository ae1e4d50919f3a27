package iptables

import (
	"context"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// family holds the programs of one family.
type family struct{ xtables.Programs }

// list reads all tables that exist. It names none, as that would create it.
func (f family) list(ctx context.Context, into *listing) error {
	tables, err := f.List(ctx, "-c")
	if err == nil {
		err = into.add(tables, f.IPv6)
	}
	if err != nil {
		return fmt.Errorf("listing the rules of %s: %w", f.Name(), err)
	}
	return nil
}

// listTable reads one table.
func (f family) listTable(ctx context.Context, table string, into *listing) error {
	tables, err := f.List(ctx, "-c", "-t", table)
	if err != nil {
		return fmt.Errorf("listing the table %s of %s: %w", table, f.Name(), err)
	}
	return into.add(tables, f.IPv6)
}

// restore runs a script; each part of it takes effect atomically.
func (f family) restore(ctx context.Context, text string) error {
	if err := f.Do(ctx, text, "--counters"); err != nil {
		return fmt.Errorf("changing the rules of %s: %w", f.Name(), err)
	}
	return nil
}
