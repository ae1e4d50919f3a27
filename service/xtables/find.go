package xtables

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/program"
)

// Find returns the programs on PATH for the iptables backend, IPv4's first, and makes
// sure that those of a family are of one variant: else one would not see the rules of
// another.
func Find(ctx context.Context) (both Both, err error) {
	var paths []string
	for i := range both {
		if both[i], err = lookUp(i == 1); err != nil {
			return Both{}, err
		}
		paths = append(paths, both[i].differing()...)
	}
	versions, err := versionsOf(ctx, paths)
	if err != nil {
		return Both{}, err
	}
	for i := range both {
		if err := both[i].identify(versions); err != nil {
			return Both{}, err
		}
	}
	return both, nil
}

// lookUp returns the paths of a family's programs.
func lookUp(ipv6 bool) (p Programs, err error) {
	p = Programs{IPv6: ipv6}
	for _, one := range []struct {
		suffix string
		into   *string
	}{{"", &p.Command}, {"-restore", &p.Restore}, {"-save", &p.Save}} {
		name := p.Name() + one.suffix
		if *one.into, err = exec.LookPath(name); err != nil {
			return Programs{}, fmt.Errorf("looking for %s, which the iptables backend needs: %w: install iptables", name, err)
		}
	}
	return p, nil
}

// differing returns the paths that may be of different variants. Most often all are
// names of one program, which is of one.
func (p Programs) differing() []string {
	paths := []string{p.Command, p.Restore, p.Save}
	return slices.DeleteFunc(paths, func(path string) bool { return path != p.Command && sameFile(path, p.Command) })
}

// identify sets the variant and the version.
func (p *Programs) identify(versions map[string]version) error {
	own := versions[p.Command]
	for _, path := range p.differing() {
		if versions[path].variant != own.variant {
			return fmt.Errorf("%s is of the variant %s but %s of %s: let both be of one variant, "+
				"for example with update-alternatives --config %s", p.Command, own.variant, path, versions[path].variant, p.Name())
		}
	}
	p.Variant, p.Version = own.variant, own.number
	p.Restore, p.Save = p.pinned(p.Restore, "-restore"), p.pinned(p.Save, "-save")
	return nil
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

// version is what a program says of itself.
type version struct {
	variant Variant
	number  string
}

// versionsOf asks several programs at once.
func versionsOf(ctx context.Context, paths []string) (map[string]version, error) {
	jobs := make([]program.Job, len(paths))
	for i, path := range paths {
		jobs[i] = program.Job{Path: path, Args: []string{"-V"}}
	}
	out := make(map[string]version, len(paths))
	for i, r := range program.RunAll(ctx, jobs...) {
		if r.Err != nil {
			return nil, fmt.Errorf("asking %s for its version: %w", filepath.Base(paths[i]), r.Err)
		}
		variant, number := parseVersion(r.Out)
		out[paths[i]] = version{variant, number}
	}
	return out, nil
}

// VersionOf asks a program for its variant and version.
func VersionOf(ctx context.Context, path string) (variant Variant, number string, err error) {
	versions, err := versionsOf(ctx, []string{path})
	v := versions[path]
	return v.variant, v.number, err
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

// sameFile reports whether two names lead to one file.
func sameFile(a, b string) bool {
	one, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	other, err := filepath.EvalSymlinks(b)
	return err == nil && one == other
}
