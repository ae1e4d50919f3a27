package iptables

import (
	"context"
	"errors"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// families are the programs of IPv4 and of IPv6.
type families struct{ xtables.Both }

// list reads all tables of both families that exist. It names none, as that would
// create it.
func (f families) list(ctx context.Context) (listing, error) {
	return f.listed(f.List(ctx, "-c"))
}

// listTable reads one table of both families.
func (f families) listTable(ctx context.Context, table string) (listing, error) {
	return f.listed(f.List(ctx, "-c", "-t", table))
}

func (f families) listed(tables [2][]xtables.Table, errs [2]error) (l listing, err error) {
	for i, p := range f.Both {
		if errs[i] == nil {
			errs[i] = l.add(tables[i], p.IPv6)
		}
		if errs[i] != nil {
			return listing{}, fmt.Errorf("listing the rules of %s: %w", p.Name(), errs[i])
		}
	}
	return l, nil
}

// restore runs a script for each family; each part of a script takes effect
// atomically. If it fails, either family may have been changed.
func (f families) restore(ctx context.Context, scripts [2]string) error {
	errs := f.Do(ctx, scripts, "--counters")
	for i, p := range f.Both {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("changing the rules of %s: %w", p.Name(), errs[i])
		}
	}
	return errors.Join(errs[:]...)
}
