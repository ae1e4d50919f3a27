// Package xtables runs the iptables programs, of either variant, and parses their
// output.
package xtables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/program"
)

// LockFile is the lock of the legacy variant.
const LockFile = "/run/xtables.lock"

// lockSeconds is the time to wait for that lock.
const lockSeconds = "5"

// Variant is one of the two sets of iptables programs: they keep their rules in
// different places in the kernel.
type Variant string

// The variants, as iptables -V names them. VariantNone is neither.
const (
	VariantNone   Variant = ""
	VariantNFT    Variant = "nf_tables"
	VariantLegacy Variant = "legacy"
)

// Variants are those of the programs of the two families, which may differ.
type Variants struct{ IPv4, IPv6 Variant }

// Of returns the variant of a family.
func (v Variants) Of(ipv6 bool) Variant {
	if ipv6 {
		return v.IPv6
	}
	return v.IPv4
}

// Has reports whether either family's programs are of a variant.
func (v Variants) Has(variant Variant) bool { return v.IPv4 == variant || v.IPv6 == variant }

// String returns them for messages: one for both families, or each.
func (v Variants) String() string {
	if v.IPv4 != v.IPv6 {
		return fmt.Sprintf("%s, for IPv6 %s", v.IPv4, v.IPv6)
	}
	return string(v.IPv4)
}

// Name returns the program name of iptables of the variant, or for VariantNone of
// any. Suffixes such as -save follow it.
func Name(ipv6 bool, variant Variant) string {
	name := "iptables"
	if ipv6 {
		name = "ip6tables"
	}
	return name + map[Variant]string{VariantNFT: "-nft", VariantLegacy: "-legacy"}[variant]
}

// Programs are the programs of one family, all of one variant. They work on the
// network namespace of the calling thread.
type Programs struct {
	IPv6                   bool
	Variant                Variant
	Version                string
	Command, Restore, Save string           // paths
	Started                *program.Started // records processes; may be nil
}

// Name returns the plain name of the family's program.
func (p Programs) Name() string { return Name(p.IPv6, VariantNone) }

func (p Programs) String() string {
	return fmt.Sprintf("%s %s (%s)", p.Command, p.Version, p.Variant)
}

// Find returns the programs on PATH for the iptables backend, and makes sure that
// they are of one variant: else one would not see the rules of another.
func Find(ctx context.Context, ipv6 bool) (Programs, error) {
	p := Programs{IPv6: ipv6}
	for _, one := range []struct {
		suffix string
		into   *string
	}{{"", &p.Command}, {"-restore", &p.Restore}, {"-save", &p.Save}} {
		name := p.Name() + one.suffix
		path, err := exec.LookPath(name)
		if err != nil {
			return Programs{}, fmt.Errorf("looking for %s, which the iptables backend needs: %w: install iptables", name, err)
		}
		*one.into = path
		// Most often all are names of one program, which is of one variant.
		if one.into != &p.Command && sameFile(path, p.Command) {
			continue
		}
		variant, version, err := VersionOf(ctx, path)
		if err != nil {
			return Programs{}, fmt.Errorf("asking %s for its version: %w", name, err)
		}
		if p.Variant == VariantNone {
			p.Variant, p.Version = variant, version
		}
		if variant != p.Variant {
			return Programs{}, fmt.Errorf("%s is of the variant %s but %s of %s: let both be of one variant, "+
				"for example with update-alternatives --config %s", p.Command, p.Variant, path, variant, p.Name())
		}
	}
	p.Restore, p.Save = p.pinned(p.Restore, "-restore"), p.pinned(p.Save, "-save")
	return p, nil
}

// pinned returns the same program under the name that only this variant has: if an
// administrator chooses the other variant while rules are in force, they are still
// found and removed.
func (p Programs) pinned(path, suffix string) string {
	own, err := exec.LookPath(Name(p.IPv6, p.Variant) + suffix)
	if err != nil || !sameFile(own, path) {
		return path
	}
	return own
}

// FindVariant returns the programs of a variant that list and restore rules. If only
// one variant is installed, its programs may have only the plain names.
func FindVariant(ctx context.Context, ipv6 bool, variant Variant) (p Programs, err error) {
	p = Programs{IPv6: ipv6, Variant: variant}
	if p.Save, err = lookVariant(ctx, ipv6, variant, "-save"); err == nil {
		p.Restore, err = lookVariant(ctx, ipv6, variant, "-restore")
	}
	return p, err
}

func lookVariant(ctx context.Context, ipv6 bool, variant Variant, suffix string) (string, error) {
	path, err := exec.LookPath(Name(ipv6, variant) + suffix)
	if err == nil {
		return path, nil
	}
	plain, plainErr := exec.LookPath(Name(ipv6, VariantNone) + suffix)
	if plainErr != nil {
		return "", err
	}
	if found, _, plainErr := VersionOf(ctx, plain); plainErr != nil || found != variant {
		return "", err
	}
	return plain, nil
}

// Beside returns the programs in the folder of an iptables, which are of its
// variant, whichever that is.
func Beside(command string) Programs {
	dir := filepath.Dir(command)
	return Programs{Command: command, Restore: filepath.Join(dir, "iptables-restore"), Save: filepath.Join(dir, "iptables-save")}
}

// VersionOf asks a program for its variant and version.
func VersionOf(ctx context.Context, path string) (variant Variant, version string, err error) {
	out, err := program.Run(ctx, "", path, "-V")
	if err != nil {
		return VariantNone, "", err
	}
	variant, version = parseVersion(out)
	return variant, version, nil
}

// parseVersion parses "iptables v1.8.9 (nf_tables)". Versions before 1.8 print no
// variant: there was only the legacy one.
func parseVersion(out string) (variant Variant, version string) {
	variant = VariantLegacy
	for _, w := range strings.Fields(out) {
		switch {
		case w == "(nf_tables)":
			variant = VariantNFT
		case len(w) > 1 && w[0] == 'v' && version == "":
			version = w[1:]
		}
	}
	return variant, version
}

// sameFile reports whether two names lead to one file.
func sameFile(a, b string) bool {
	one, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	other, err := filepath.EvalSymlinks(b)
	return err == nil && one == other
}

// List returns all tables that exist, without creating any. Options are those of
// iptables-save, such as -c for counters.
func (p Programs) List(ctx context.Context, options ...string) ([]Table, error) {
	out, err := program.Run(ctx, "", p.Save, options...)
	if err != nil {
		return nil, err
	}
	return Parse(out)
}

// Show returns one table, which the legacy variant creates if it does not exist.
func (p Programs) Show(ctx context.Context, table string) ([]Table, error) {
	out, err := program.Run(ctx, "", p.Command, "-w", lockSeconds, "-t", table, "-S")
	if err != nil {
		return nil, err
	}
	return Parse("*" + table + "\n" + out)
}

// Do runs a script of iptables-restore; each table's part of it takes effect
// atomically. It leaves alone what the script does not name.
func (p Programs) Do(ctx context.Context, script string, options ...string) error {
	if script == "" {
		return nil
	}
	_, err := program.RunNoted(ctx, p.Started, script, p.Restore, append([]string{"--noflush", "-w", lockSeconds}, options...)...)
	return err
}

// LegacyTables returns the tables of the legacy variant that the kernel has. Its
// programs would create them to list them, and every packet would pass them from
// then on.
func LegacyTables(ipv6 bool) ([]string, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if ipv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without that variant
	}
	if err != nil {
		return nil, fmt.Errorf("looking for iptables-legacy tables: %w", err)
	}
	return strings.Fields(string(text)), nil
}
