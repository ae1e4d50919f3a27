package iptables

import (
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// A network's rules are in libvirt's own chains, or, while libvirt has the
// network as well, in chains beside them: libvirt deletes its rules by their
// content, which would delete ours instead, and libvirt's rules must not change.
const (
	libvirtPrefix = "LIBVIRT_"
	besidePrefix  = "VIRTFW_"
)

// beside returns the service's chain that corresponds to one of libvirt's.
func (c Chain) beside() Chain {
	c.Name = besidePrefix + strings.TrimPrefix(c.Name, libvirtPrefix)
	return c
}

// isBeside reports whether a chain is one of those beside libvirt's.
func (c Chain) isBeside() bool { return strings.HasPrefix(c.Name, besidePrefix) }

// purpose returns the name of libvirt's chain that a chain is, or is beside.
func (c Chain) purpose() string {
	if rest, ok := strings.CutPrefix(c.Name, besidePrefix); ok {
		return libvirtPrefix + rest
	}
	return c.Name
}

// besideAll returns the rules, moved to the chains beside libvirt's.
func besideAll(rules []Rule) []Rule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].Chain = out[i].Chain.beside()
	}
	return out
}

// interleave returns all jumps of a parent, from its head. Each chain beside one
// of libvirt's comes before it, as libvirt's refuses unknown traffic. Traffic from
// guests is accepted only after libvirt's chain of traffic to guests, as the
// network that the packet goes to may refuse it there.
func interleave(beside, libvirts []Rule) []Rule {
	if len(beside) < 2 || len(libvirts) < 2 {
		return slices.Concat(beside, libvirts)
	}
	at := len(beside) - 1
	return slices.Concat(beside[:at], libvirts[:at], beside[at:], libvirts[at:])
}

// state returns what libvirt has.
func (b *Backend) state() libvirt.State {
	if b.config.Libvirt == nil {
		return libvirt.State{}
	}
	return b.config.Libvirt()
}

// withoutFill returns the rules without the CHECKSUM target if the kernel lacks it.
func (b *Backend) withoutFill(rules []Rule) []Rule {
	if b.noFill {
		// libvirt goes on without it, too.
		rules = slices.DeleteFunc(rules, func(r Rule) bool { return r.Target == targetChecksum })
	}
	return rules
}

// libvirtsRules returns the rules that libvirt makes for a network of ours that
// it has too, without our differences from it (D3, D10); never nil.
func (b *Backend) libvirtsRules(ours network.Network, theirs libvirt.Network) []Rule {
	n := ours
	if theirs.Understood {
		n = theirs.Definition
	}
	return append([]Rule{}, b.withoutFill(Libvirts(n))...)
}

// Libvirts returns the rules that libvirt itself makes for a network.
func Libvirts(n network.Network) []Rule {
	n.Routes = nil
	if len(n.Devices) > 1 {
		n.Devices = n.Devices[:1]
	}
	return Compile(n)
}

// Forwards reports whether a rule lets forwarded packets through or refuses them.
func (r Rule) Forwards() bool {
	return slices.Contains([]string{ChainCross, ChainForwardIn, ChainForwardOut}, r.purpose())
}

// Translates reports whether a rule translates addresses, or exempts packets.
func (r Rule) Translates() bool { return r.Table == tableNAT }

// Serves reports whether a rule opens a service of the host's.
func (r Rule) Serves() bool { return r.purpose() == ChainInput || r.purpose() == ChainOutput }

// movedChains returns the networks whose rules change their chains because libvirt
// has started or stopped having them: these are not damaged.
func (b *Backend) movedChains(want []entry) map[string]bool {
	was := make(map[string]entry, len(b.installed))
	for _, n := range b.installed {
		was[n.network] = n
	}
	out := make(map[string]bool)
	for _, n := range want {
		if old, is := was[n.network]; is && (old.theirs == nil) != (n.theirs == nil) {
			out[n.network] = true
		}
	}
	return out
}
