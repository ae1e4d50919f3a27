package iptables

import "slices"

// hook is where one of libvirt's chains hangs.
type hook struct {
	table, parent, chain string
}

// hooks are those of one family, in libvirt's order from the head of each
// parent: what stays within a bridge is let through before the refusal of
// what enters it.
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

// jump is the rule that leads from a hook to the chain.
func (h hook) jump(ipv6 bool) Rule {
	return Rule{Chain: Chain{IPv6: ipv6, Table: h.table, Name: h.parent}, Target: h.chain}
}

// allChains are libvirt's chains of both families.
func allChains() []Chain {
	var out []Chain
	for _, ipv6 := range []bool{false, true} {
		for _, h := range hooks {
			out = append(out, h.of(ipv6))
		}
	}
	return out
}

// allJumps are the rules that lead to them.
func allJumps() []Rule {
	var out []Rule
	for _, ipv6 := range []bool{false, true} {
		for _, h := range hooks {
			out = append(out, h.jump(ipv6))
		}
	}
	return out
}

// used says whether one of libvirt's chains has rules, or is jumped to from
// elsewhere than its hook. Then all of them stay: a running libvirt makes its
// chains once only and could start no network if one of them were gone.
func (l listing) used() bool {
	chains, jumps := allChains(), allJumps()
	for c, lines := range l.chains {
		if len(lines) > 0 && slices.Contains(chains, c) {
			return true
		}
		for _, line := range lines {
			to := Chain{IPv6: c.IPv6, Table: c.Table, Name: line.target}
			if slices.Contains(chains, to) && (!line.known || !slices.Contains(jumps, line.rule)) {
				return true
			}
		}
	}
	return false
}
