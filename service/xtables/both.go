package xtables

import (
	"context"

	"github.com/virtfirewalld/virtfirewalld/service/program"
)

// Both are the programs of both families, IPv4's first.
type Both [2]Programs

// Variants returns the variant of each family's programs.
func (b Both) Variants() Variants { return Variants{IPv4: b[0].Variant, IPv6: b[1].Variant} }

// List returns the tables of both families, as Programs.List does, which it lists at
// once.
func (b Both) List(ctx context.Context, options ...string) (tables [2][]Table, errs [2]error) {
	var jobs []program.Job
	for _, p := range b {
		jobs = append(jobs, program.Job{Path: p.Save, Args: options})
	}
	for i, r := range program.RunAll(ctx, jobs...) {
		if errs[i] = r.Err; errs[i] == nil {
			tables[i], errs[i] = Parse(r.Out)
		}
	}
	return tables, errs
}

// Do runs a script of each family, as Programs.Do does, at once: most of the time is
// the programs' start and what the kernel waits for. Each runs whether or not the
// other fails. Two of the legacy variant run one after the other, as their lock
// excludes each other: before iptables 1.8.8 one that waits for it looks again only
// after a second.
func (b Both) Do(ctx context.Context, scripts [2]string, options ...string) (errs [2]error) {
	if scripts[0] == "" || scripts[1] == "" || b[0].Variant == VariantLegacy && b[1].Variant == VariantLegacy {
		for i, p := range b {
			errs[i] = p.Do(ctx, scripts[i], options...)
		}
		return errs
	}
	var jobs []program.Job
	for i, p := range b {
		jobs = append(jobs, p.restoring(scripts[i], options))
	}
	for i, r := range program.RunAll(ctx, jobs...) {
		errs[i] = r.Err
	}
	return errs
}
