package iptables

import "slices"

// hook is a built-in chain and the chain of libvirt's that it jumps to.
type hook struct {
	table, parent, chain string
}

// hooks are those of one family, in libvirt's order from the head of each
// parent: traffic within a bridge is accepted before traffic to it is refused.
var hooks = [...]hook{
	{tableNAT, "POSTROUTING", ChainPostrouting},
	{tableMangle, "POSTROUTING", ChainPostrouting},
	{tableFilter, "INPUT", ChainInput},
	{tableFilter, "OUTPUT", ChainOutput},
	{tableFilter, "FORWARD", ChainCross},
	{tableFilter, "FORWARD", ChainForwardIn},
	{tableFilter, "FORWARD", ChainForwardOut},
}

func (h hook) of(ipv6 bool) Chain { return Chain{IPv6: ipv6, Table: h.table, Name: h.chain} }

// jump returns the rule that jumps to the chain.
func (h hook) jump(ipv6 bool) Rule {
	return Rule{Chain: Chain{IPv6: ipv6, Table: h.table, Name: h.parent}, Target: h.chain}
}

// allChains returns libvirt's chains and those beside them, of both families.
func allChains() []Chain {
	var out []Chain
	for _, ipv6 := range []bool{false, true} {
		for _, h := range hooks {
			out = append(out, h.of(ipv6))
		}
		for _, h := range hooks {
			out = append(out, h.of(ipv6).beside())
		}
	}
	return out
}

// jumpsOf returns a parent's jumps to libvirt's chains, or to those beside them,
// in their order.
func jumpsOf(parent Chain, beside bool) []Rule {
	var out []Rule
	for _, h := range hooks {
		if h.table != parent.Table || h.parent != parent.Name {
			continue
		}
		jump := h.jump(parent.IPv6)
		if beside {
			jump.Target = h.of(parent.IPv6).beside().Name
		}
		out = append(out, jump)
	}
	return out
}

// parents returns the chains that jump to libvirt's and those beside them.
func parents() []Chain {
	var out []Chain
	for _, ipv6 := range []bool{false, true} {
		for _, h := range hooks {
			if parent := h.jump(ipv6).Chain; !slices.Contains(out, parent) {
				out = append(out, parent)
			}
		}
	}
	return out
}

// used reports whether one of libvirt's chains, or of those beside them, has
// rules, or is jumped to from elsewhere than its hook. Then all of them stay: a
// running libvirt creates its chains only once and could start no network if one
// of them were gone.
func (l listing) used(beside bool) bool {
	ours := func(c Chain) bool { return slices.Contains(allChains(), c) && c.isBeside() == beside }
	for c, lines := range l.chains {
		if len(lines) > 0 && ours(c) {
			return true
		}
		for _, line := range lines {
			to := Chain{IPv6: c.IPv6, Table: c.Table, Name: line.target}
			if ours(to) && (!line.known || !slices.Contains(jumpsOf(c, beside), line.rule)) {
				return true
			}
		}
	}
	return false
}
