package iptables

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/program"
)

const (
	lockSeconds = "5" // for the lock of the legacy variant, as long as libvirt's own tools are patient
)

// The two variants of iptables, by the kernel's side that they talk to.
const (
	VariantNFT    = "nf_tables"
	VariantLegacy = "legacy"
)

// family is the programs of one family, which the PATH decides.
type family struct {
	ipv6                   bool
	command, restore, save string
	variant, version       string
	started                *program.Started
}

func (f family) name() string {
	if f.ipv6 {
		return "ip6tables"
	}
	return "iptables"
}

// findFamily finds the programs and makes sure that they are of one variant:
// what one of them put in, another one could not see.
func findFamily(ctx context.Context, ipv6 bool) (family, error) {
	f := family{ipv6: ipv6}
	for _, p := range []struct {
		suffix string
		into   *string
	}{{"", &f.command}, {"-restore", &f.restore}, {"-save", &f.save}} {
		name := f.name() + p.suffix
		path, err := exec.LookPath(name)
		if err != nil {
			return family{}, fmt.Errorf("looking for %s, which the iptables backend needs: %w: install iptables", name, err)
		}
		*p.into = path
		// Most often all are names of one program, which is of one variant.
		if p.into != &f.command && sameFile(path, f.command) {
			continue
		}
		out, err := program.Run(ctx, "", path, "-V")
		if err != nil {
			return family{}, fmt.Errorf("asking %s for its version: %w", name, err)
		}
		variant, version := parseVersion(out)
		if f.variant == "" {
			f.variant, f.version = variant, version
		}
		if variant != f.variant {
			return family{}, fmt.Errorf("%s is of the variant %s but %s of %s: let both be of one variant, "+
				"for example with update-alternatives --config %s", f.command, f.variant, path, variant, f.name())
		}
	}
	f.restore, f.save = f.pinned(f.restore, "-restore"), f.pinned(f.save, "-save")
	return f, nil
}

// pinned is the same program under the name that only this variant has: where
// an administrator chooses the other variant while rules are in force, they are
// still found, and taken out, where they are.
func (f family) pinned(path, suffix string) string {
	short := map[string]string{VariantNFT: "-nft", VariantLegacy: "-legacy"}[f.variant]
	own, err := exec.LookPath(f.name() + short + suffix)
	if err != nil {
		return path
	}
	if !sameFile(own, path) {
		return path
	}
	return own
}

// sameFile says whether two names lead to one file.
func sameFile(a, b string) bool {
	one, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	other, err := filepath.EvalSymlinks(b)
	return err == nil && one == other
}

// parseVersion reads "iptables v1.8.9 (nf_tables)". Versions before 1.8 name no
// variant: there was only the legacy one.
func parseVersion(out string) (variant, version string) {
	words := strings.Fields(out)
	variant = VariantLegacy
	for _, w := range words {
		switch {
		case w == "(nf_tables)":
			variant = VariantNFT
		case len(w) > 1 && w[0] == 'v' && version == "":
			version = w[1:]
		}
	}
	return variant, version
}

// list reads all tables that exist. It makes none, as it would with a table's
// name.
func (f family) list(ctx context.Context, into *listing) error {
	out, err := program.Run(ctx, "", f.save, "-c")
	if err != nil {
		return fmt.Errorf("listing the rules of %s: %w", f.name(), err)
	}
	if err := into.read(out, f.ipv6); err != nil {
		return fmt.Errorf("listing the rules of %s: %w", f.name(), err)
	}
	return nil
}

// listTable reads one table.
func (f family) listTable(ctx context.Context, table string, into *listing) error {
	out, err := program.Run(ctx, "", f.save, "-c", "-t", table)
	if err != nil {
		return fmt.Errorf("listing the table %s of %s: %w", table, f.name(), err)
	}
	return into.read(out, f.ipv6)
}

// do carries a script out; each part of it whole or not at all. It leaves
// alone what the script does not name.
func (f family) do(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	if _, err := program.RunNoted(ctx, f.started, text, f.restore, "--noflush", "--counters", "-w", lockSeconds); err != nil {
		return fmt.Errorf("changing the rules of %s: %w", f.name(), err)
	}
	return nil
}
