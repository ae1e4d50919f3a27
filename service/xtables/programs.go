// Package xtables runs the iptables programs, of either variant, and parses their
// output.
package xtables

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// Beside returns the programs in the folder of an iptables, which are of its
// variant, whichever that is.
func Beside(command string) Programs {
	dir := filepath.Dir(command)
	return Programs{Command: command, Restore: filepath.Join(dir, "iptables-restore"), Save: filepath.Join(dir, "iptables-save")}
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
	return program.RunAll(ctx, p.restoring(script, options))[0].Err
}

func (p Programs) restoring(script string, options []string) program.Job {
	args := append([]string{"--noflush", "-w", lockSeconds}, options...)
	return program.Job{Path: p.Restore, Args: args, Stdin: script, Started: p.Started}
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
