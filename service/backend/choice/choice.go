// Package choice decides which backend holds the rules: what is configured, the
// service's own configuration before libvirt's, or else what the host has. It does
// no I/O: the caller reads the files and probes.
package choice

import (
	"errors"
	"fmt"
	"slices"
)

// The backends, as they are configured.
const (
	Auto     = "auto"
	NFTables = "nftables"
	IPTables = "iptables"
)

// Setting is a value of firewall_backend and where it was read. The zero
// Setting is one that is not set.
type Setting struct {
	Value string
	File  string // "" for one that a client asked for
	Line  int
}

// Configured holds the settings of the configuration files.
type Configured struct {
	Own     Setting // auto, nftables or iptables; auto leaves it to what follows
	Libvirt Setting // of /etc/libvirt/network.conf
}

// Available is what the host has.
type Available struct {
	NFTables error  // the error of its probe; nil if the kernel can hold our rules
	NFT      bool   // the program nft is on PATH
	IPTables error  // the error of its probe; nil if the program works
	Variant  string // of the program iptables: nf_tables or legacy, "" if unknown
}

// Decision is the backend to use.
type Decision struct {
	Backend   string
	Source    string   // where the choice came from, for people
	Available []string // what works, the preferred first
}

// ErrUnavailable is wrapped by errors that mean that the host cannot do what is
// configured, or has no working backend.
var ErrUnavailable = errors.New("no usable firewall backend")

// Choose decides. The decision that comes with an error has Available alone: a
// configured backend that does not work is never silently replaced.
func Choose(c Configured, a Available) (Decision, error) {
	d := Decision{Available: a.working()}
	for _, s := range []struct {
		Setting
		known string
		unset []string
	}{
		{c.Own, "auto, nftables or iptables", []string{"", Auto}},
		// In libvirt none means that no network with rules starts, and pf is
		// FreeBSD's: neither applies to this service.
		{c.Libvirt, "nftables or iptables", []string{"", "none", "pf"}},
	} {
		switch {
		case slices.Contains(s.unset, s.Value):
			continue
		case s.Value != NFTables && s.Value != IPTables:
			return d, fmt.Errorf("%sunknown firewall_backend %q: it is %s", s.prefix(), s.Value, s.known)
		}
		if err := a.probed(s.Value); err != nil {
			return d, a.refuse(s.Setting, err)
		}
		d.Backend, d.Source = s.Value, s.source()
		return d, nil
	}
	return a.best(d)
}

// best chooses by what the host has.
func (a Available) best(d Decision) (Decision, error) {
	switch {
	case a.NFTables == nil && a.NFT:
		d.Backend, d.Source = NFTables, "nftables: the kernel has it and nft is installed"
	case a.IPTables == nil && a.NFTables == nil:
		d.Backend, d.Source = IPTables, a.iptables()+": it works, and nft is not installed"
	case a.IPTables == nil:
		d.Backend, d.Source = IPTables, a.iptables()+": it works, and nftables does not"
	case a.NFTables == nil:
		d.Backend, d.Source = NFTables, "nftables: the kernel has it; neither nft nor a working iptables is installed"
	default:
		return d, fmt.Errorf("%w: the probe of nftables failed: %w; the probe of iptables failed: %w: "+
			"use a kernel with nf_tables, or install iptables", ErrUnavailable, a.NFTables, a.IPTables)
	}
	return d, nil
}

func (a Available) probed(backend string) error {
	if backend == NFTables {
		return a.NFTables
	}
	return a.IPTables
}

func (a Available) working() []string {
	var out []string
	for _, backend := range []string{NFTables, IPTables} {
		if a.probed(backend) == nil {
			out = append(out, backend)
		}
	}
	return out
}

func (a Available) iptables() string {
	if a.Variant == "" {
		return IPTables
	}
	return IPTables + " (" + a.Variant + ")"
}

// refuse returns why a requested backend cannot be used, and what can.
func (a Available) refuse(s Setting, probe error) error {
	advice, other, otherErr := "install iptables", NFTables, a.NFTables
	if s.Value == NFTables {
		advice, other, otherErr = "use a kernel with nf_tables", IPTables, a.IPTables
	}
	if otherErr == nil {
		advice += fmt.Sprintf(", or set firewall_backend = %q in the service's own configuration", other)
	}
	return fmt.Errorf("%sfirewall_backend is %q, and the probe of %s failed: %w: %s (%w)",
		s.prefix(), s.Value, s.Value, probe, advice, ErrUnavailable)
}

func (s Setting) source() string {
	if s.File == "" {
		return "asked for by a client"
	}
	return "configured in " + s.where()
}

func (s Setting) where() string { return fmt.Sprintf("%s, line %d", s.File, s.Line) }

// prefix begins a message about the setting.
func (s Setting) prefix() string {
	if s.File == "" {
		return ""
	}
	return s.where() + ": "
}
