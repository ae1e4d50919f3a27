// Package neighbour handles other programs' firewall rules that concern our
// networks. Leftovers removes what libvirt itself left behind for networks that
// are ours now.
//
// It acts in the network namespace of the calling thread.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Leftovers removes the rules that libvirt made for networks which are ours now, and
// which it no longer has: in the LIBVIRT_ chains of iptables, of both variants,
// and in its own nftables tables. Only rules of exactly the kinds that libvirt
// makes, for the network's bridge and subnets, count: administrators and hooks put
// theirs into the same chains.
type Leftovers struct{ driver *libvirt.Driver }

// NewLeftovers returns Leftovers for what the driver no longer has.
func NewLeftovers(driver *libvirt.Driver) *Leftovers { return &Leftovers{driver} }

// Report is what Remove did.
type Report struct {
	Rules  map[string]int // removed rules by location: iptables-nft, table ip libvirt_network
	Chains []string       // chains and tables that were removed as nothing else used them
	// Kept are rules beside libvirt's that name a bridge or subnet of ours and
	// that libvirt did not make, or not for this network. They stay.
	Kept []string
	// Again is when to retry, 0 if something has to happen first: a network that
	// libvirt may just be starting or stopping has no leftovers yet.
	Again time.Duration
}

// Empty reports whether nothing was removed.
func (r Report) Empty() bool { return len(r.Rules)+len(r.Chains) == 0 }

// String returns the report for the log.
func (r Report) String() string {
	var parts []string
	for _, where := range slices.Sorted(maps.Keys(r.Rules)) {
		rules := "1 rule"
		if n := r.Rules[where]; n != 1 {
			rules = fmt.Sprintf("%d rules", n)
		}
		parts = append(parts, where+": "+rules)
	}
	parts = append(parts, r.Chains...)
	return strings.Join(parts, ", ")
}

func (r *Report) add(f finding) {
	if n := f.rules(); n > 0 {
		if r.Rules == nil {
			r.Rules = make(map[string]int)
		}
		r.Rules[f.where] += n
	}
	for _, chain := range f.gone {
		r.Chains = append(r.Chains, f.where+": "+chain)
	}
	for _, rule := range f.kept {
		r.Kept = append(r.Kept, f.where+": "+rule)
	}
}

// Remove removes libvirt's rules for those of these networks that it no longer
// has, and chains and tables of libvirt's that nothing uses any more. The latter
// stay while libvirt runs or has any network, for it creates them only once and
// could start no network without them. ours are the variants of iptables that hold
// the service's own rules, which look the same, and are left alone. Each chain set
// and libvirt's tables change atomically; an error in one does not stop the others.
func (l *Leftovers) Remove(ctx context.Context, nets []network.Network, ours xtables.Variants) (Report, error) {
	var report Report
	state := l.driver.State()
	if state.Err != nil {
		return report, state.Err
	}
	t := targets{make(map[string]target), make(map[netip.Prefix]string)}
	for _, n := range nets {
		left, again := state.Left(n.Bridge)
		if left {
			t.add(n)
		} else if again > 0 && (report.Again == 0 || again < report.Again) {
			report.Again = again
		}
	}
	t.exclude(state.Networks())
	if len(t.bridges) == 0 {
		return report, nil
	}
	surveys, err := removeTables(ctx, t, state.Idle())
	errs := []error{err}
	for _, v := range surveys {
		report.add(v.finding)
	}
	sets, err := chainSets(surveys, ours)
	errs = append(errs, err)
	for _, x := range sets {
		f, err := x.remove(ctx, t, state.Idle())
		report.add(f)
		errs = append(errs, err)
	}
	return report, errors.Join(errs...)
}

// Presence is what the kernel has of libvirt's rules.
type Presence struct {
	// Tables and XTables are the numbers of rules for each network, by name: in
	// libvirt's own nft tables, and in the one variant of iptables that has most.
	Tables, XTables map[string]int
	// Chains reports whether any of libvirt's chains or tables exist.
	Chains bool
}

// Present counts the rules that libvirt has in the kernel for networks as it
// defines them.
func (l *Leftovers) Present(ctx context.Context, nets []network.Network) (Presence, error) {
	t := targetsOf(nets)
	out := Presence{Tables: make(map[string]int), XTables: make(map[string]int)}
	surveys, _, err := surveyAll(ctx, t)
	errs := []error{err}
	for _, v := range surveys {
		addTo(out.Tables, v.finding)
		out.Chains = out.Chains || v.table
	}
	sets, err := chainSets(surveys, xtables.Variants{})
	errs = append(errs, err)
	variants := map[xtables.Variant]map[string]int{xtables.VariantNFT: {}, xtables.VariantLegacy: {}}
	for _, x := range sets {
		_, _, f, err := x.find(ctx, t, false)
		addTo(variants[x.variant], f)
		out.Chains = out.Chains || f.chains
		errs = append(errs, err)
	}
	for _, counts := range variants {
		for name, n := range counts {
			out.XTables[name] = max(out.XTables[name], n)
		}
	}
	return out, errors.Join(errs...)
}

func addTo(counts map[string]int, f finding) {
	for name, n := range f.networks {
		counts[name] += n
	}
}

// Complete reports whether all rules exist that libvirt makes for a network, with
// either of its backends. Checksum rules are optional, as for libvirt.
func (p Presence) Complete(n network.Network) (found, want int, ok bool) {
	tables, chains := 0, 0
	for _, r := range iptables.Libvirts(n) {
		if r.Forwards() || r.Translates() {
			tables++
		}
		if r.Forwards() || r.Translates() || r.Serves() {
			chains++
		}
	}
	if p.Tables[n.Name] >= tables || p.XTables[n.Name] >= chains {
		return chains, chains, true
	}
	if p.Tables[n.Name] > p.XTables[n.Name] {
		return p.Tables[n.Name], tables, false
	}
	return p.XTables[n.Name], chains, false
}

// removeTables removes the rules in libvirt's own tables, and retries if any
// program changed anything meanwhile. On a host where that never ends, it removes
// rules unguarded after a while, and a table that has become empty may stay.
func removeTables(ctx context.Context, t targets, tables bool) (done [2]survey, err error) {
	for attempt := range attempts {
		var again bool
		again, err = removeOnce(ctx, t, &done, tables, attempt < attempts/2)
		if err == nil && !again || !pause(ctx, time.Duration(attempt)*attemptPause) {
			break
		}
	}
	return done, errors.Join(err, ctx.Err())
}

// removeOnce surveys and removes. again is true if there may be an empty table.
func removeOnce(ctx context.Context, t targets, done *[2]survey, tables, guarded bool) (again bool, err error) {
	found, generation, err := surveyAll(ctx, t)
	if err != nil {
		return false, err
	}
	rules := rulesIn(found)
	if rules && !guarded {
		generation, tables, again = 0, false, tables
	}
	err = removeRules(found, generation, tables)
	if errors.Is(err, nfnl.ErrChanged) && !rules {
		return true, nil
	}
	for i := range done {
		done[i].xtables = found[i].xtables
		if err == nil {
			done[i].add(found[i], tables)
		}
	}
	return again, err
}

func rulesIn(surveys [2]survey) bool {
	return len(surveys[0].handles)+len(surveys[1].handles) > 0
}

// chainSets returns the variants and families of iptables that may have leftovers.
func chainSets(surveys [2]survey, ours xtables.Variants) ([]chainSet, error) {
	var out []chainSet
	for i, v := range surveys {
		ipv6 := i == 1
		if v.xtables && ours.Of(ipv6) != xtables.VariantNFT {
			out = append(out, chainSet{xtables.VariantNFT, ipv6})
		}
		legacy, err := hasLegacy(ipv6)
		if err != nil {
			return out, err
		}
		if legacy && ours.Of(ipv6) != xtables.VariantLegacy {
			out = append(out, chainSet{xtables.VariantLegacy, ipv6})
		}
	}
	return out, nil
}
