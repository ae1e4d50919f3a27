package neighbour

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/program"
)

// Variant is which of the two sets of iptables programs is meant: they keep
// their rules in different places in the kernel.
type Variant string

// The variants, as iptables -V names them. VariantNone is neither.
const (
	VariantNone   Variant = ""
	VariantNFT    Variant = "nf_tables"
	VariantLegacy Variant = "legacy"
)

const (
	lockSeconds  = "5"
	attempts     = 10
	attemptPause = 2 * time.Millisecond
)

// xtables is the iptables programs of a variant and a family.
type xtables struct {
	variant Variant
	ipv6    bool
}

func (x xtables) base() string {
	if x.ipv6 {
		return "ip6tables"
	}
	return "iptables"
}

// name is that of the programs where both variants are installed.
func (x xtables) name() string {
	if x.variant == VariantNFT {
		return x.base() + "-nft"
	}
	return x.base() + "-legacy"
}

// program finds one of the programs. Where only one variant is installed, its
// programs may have the plain names alone.
func (x xtables) program(ctx context.Context, suffix string) (string, error) {
	path, err := exec.LookPath(x.name() + suffix)
	if err == nil {
		return path, nil
	}
	plain, plainErr := exec.LookPath(x.base() + suffix)
	if plainErr != nil {
		return "", err
	}
	version, plainErr := program.Run(ctx, "", plain, "-V")
	if plainErr != nil || strings.Contains(version, string(VariantNFT)) != (x.variant == VariantNFT) {
		return "", err
	}
	return plain, nil
}

// find looks for what libvirt left.
func (x xtables) find(ctx context.Context, t targets, chains bool) (script string, f finding, err error) {
	save, err := x.program(ctx, "-save")
	if err != nil {
		return "", f, fmt.Errorf("looking at what libvirt left with %s: %w: install iptables", x.name(), err)
	}
	text, err := program.Run(ctx, "", save)
	if err != nil {
		return "", f, err
	}
	script, f = removal(text, t, chains)
	f.where = x.name()
	return script, f, nil
}

// remove takes out what libvirt left. Each table changes whole or not at all;
// where another program was faster, what is left is looked up anew.
func (x xtables) remove(ctx context.Context, t targets, chains bool) (done finding, err error) {
	done.where = x.name()
	for attempt := range attempts {
		var script string
		var f finding
		if script, f, err = x.find(ctx, t, chains); err != nil || script == "" {
			done.kept = f.kept
			return done, err
		}
		restore, err := x.program(ctx, "-restore")
		if err != nil {
			return done, fmt.Errorf("removing what libvirt left with %s: %w: install iptables", x.name(), err)
		}
		if _, err = program.Run(ctx, script, restore, "--noflush", "-w", lockSeconds); err == nil {
			return f, nil
		}
		if attempt == attempts-1 || !pause(ctx, attemptPause) {
			return done, errors.Join(fmt.Errorf("removing what libvirt left with %s: %w", x.name(), err), ctx.Err())
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

// hasLegacy says whether the kernel has tables of the legacy variant. Its
// programs would make them only to look into them, and every packet would pass
// them from then on.
func hasLegacy(ipv6 bool) (bool, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if ipv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // a kernel without that variant
	}
	if err != nil {
		return false, fmt.Errorf("looking for iptables-legacy tables: %w", err)
	}
	return slices.ContainsFunc(strings.Fields(string(text)), isHomeTable), nil
}

// isHomeTable says whether libvirt has chains in a table of that name.
func isHomeTable(table string) bool {
	return table == "filter" || table == "nat" || table == "mangle"
}
