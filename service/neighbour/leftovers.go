// Package neighbour deals with other programs' firewall rules that concern our
// networks. Its first part takes out what libvirt itself left behind for
// networks that are ours now.
//
// It acts in the network namespace of the calling thread.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// LibvirtRunDir is where libvirt's network driver keeps its state.
const LibvirtRunDir = "/run/libvirt/network"

// Leftovers is the rules that libvirt made for networks which are ours now: in
// the LIBVIRT_ chains of iptables, of both variants, and in its own nftables
// tables. Only rules of exactly the kinds that libvirt makes, for the network's
// bridge and subnets, count: people and hooks put theirs into the same chains.
type Leftovers struct{ runDir string }

// NewLeftovers looks for libvirt's state in runDir, see LibvirtRunDir.
func NewLeftovers(runDir string) *Leftovers { return &Leftovers{runDir} }

// Report is what Remove did.
type Report struct {
	Rules  map[string]int // how many rules went, by place: iptables-nft, table ip libvirt_network
	Chains []string       // chains and tables that went since they held nothing else
	// Kept are rules beside libvirt's that name a bridge or subnet of ours and
	// that libvirt did not make, or not for this network. They stay.
	Kept []string
}

// Empty says that nothing was there to remove.
func (r Report) Empty() bool { return len(r.Rules)+len(r.Chains) == 0 }

// String is for the log.
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

// Remove takes out libvirt's rules for these networks, and chains and tables of
// libvirt's that nothing uses any more. The latter stay while libvirt runs, for
// it makes them only once and could start no network without them. ours is the
// variant of iptables that holds the service's own rules, which look the same,
// and is left alone. Each place changes whole or not at all; after an error in
// one the others are done all the same.
func (l *Leftovers) Remove(ctx context.Context, nets []network.Network, ours Variant) (Report, error) {
	var report Report
	running, err := l.Running()
	if err != nil {
		return report, err
	}
	t := targetsOf(nets)
	surveys, err := removeTables(ctx, t, !running)
	errs := []error{err}
	for _, v := range surveys {
		report.add(v.finding)
	}
	places, err := places(surveys, ours)
	errs = append(errs, err)
	for _, x := range places {
		f, err := x.remove(ctx, t, !running)
		report.add(f)
		errs = append(errs, err)
	}
	return report, errors.Join(errs...)
}

// Present says for which of the networks, by name, libvirt has rules: after
// Remove, those that libvirt still manages and made rules for again.
func (l *Leftovers) Present(ctx context.Context, nets []network.Network, ours Variant) (map[string]bool, error) {
	t := targetsOf(nets)
	out := make(map[string]bool)
	note := func(f finding) {
		for name := range f.networks {
			out[name] = true
		}
	}
	surveys, _, err := surveyAll(ctx, t)
	errs := []error{err}
	for _, v := range surveys {
		note(v.finding)
	}
	places, err := places(surveys, ours)
	errs = append(errs, err)
	for _, x := range places {
		_, f, err := x.find(ctx, t, false)
		note(f)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Running says whether libvirt's network driver runs, which holds a lock as
// long as it does. A driver that systemd would start when asked does not run.
func (l *Leftovers) Running() (bool, error) {
	f, err := os.Open(filepath.Join(l.runDir, "driver.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking whether libvirt runs: %w", err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return false, fmt.Errorf("looking whether libvirt runs: %w", err)
	}
	return lock.Type != unix.F_UNLCK, nil
}

// removeTables empties libvirt's own tables, and looks again if anybody changed
// anything meanwhile. On a host where that never ends, rules go unguarded after
// a while, and a table that holds nothing more may stay.
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

// removeOnce looks and removes. again is true if there may be an empty table.
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
	if errors.Is(err, errChanged) && !rules {
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

// places are the sets of iptables programs that have chains of libvirt's to
// look into.
func places(surveys [2]survey, ours Variant) ([]xtables, error) {
	var out []xtables
	for i, v := range surveys {
		if v.xtables && ours != VariantNFT {
			out = append(out, xtables{VariantNFT, i == 1})
		}
		legacy, err := hasLegacy(i == 1)
		if err != nil {
			return out, err
		}
		if legacy && ours != VariantLegacy {
			out = append(out, xtables{VariantLegacy, i == 1})
		}
	}
	return out, nil
}
