package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// probeChain is the chain that rules are tried in. Nothing jumps to it.
const probeChain = "VIRTFW_TRIAL"

// Probe tests whether the programs on PATH and the kernel can hold the rules, by
// adding each kind of them to a chain of its own, which it removes.
func (b *Backend) Probe(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probe(ctx)
}

// probe is Probe for callers that hold mu. What worked before is not tried again:
// it takes a dozen commits, 0.1 s on a host that has none of the tables.
func (b *Backend) probe(ctx context.Context) error {
	programs, err := xtables.Find(ctx)
	if err != nil {
		return err
	}
	found := families{programs}
	for i := range found.Both {
		found.Both[i].Started = b.config.Started
	}
	noFill := false
	if !b.probed(found) {
		if noFill, err = found.try(ctx); err != nil {
			return err
		}
		if !noFill { // else it may come yet, with a kernel module
			b.saveProbed(found)
		}
	}
	if noFill && !b.noFill {
		b.log.Warn("iptables has no CHECKSUM target here, so that guests which check it may not take DHCP answers")
	}
	b.families, b.noFill = &found, noFill
	return nil
}

// try tests whether both families can do what the rules need. noFill reports that
// there is no CHECKSUM target, which is optional.
func (f families) try(ctx context.Context) (noFill bool, err error) {
	fill := Rule{Chain: Chain{Table: tableMangle}, Out: "lo", Protocol: "udp", Port: 68, Target: targetChecksum}
	v4, v6 := probeRules(false), probeRules(true)
	errs := f.Do(ctx, [2]string{trial(append(v4, fill)), trial(v6)})
	if noFill = errs[0] != nil; noFill {
		err := removeTrial(ctx, f.Both[0])
		errs[0] = errors.Join(f.Both[0].Do(ctx, trial(v4)), err)
	}
	for i, p := range f.Both {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("trying %s: %w", p, errors.Join(errs[i], removeTrial(ctx, p)))
		}
	}
	return noFill, errors.Join(errs[:]...)
}

// Variants returns those of the programs that the backend uses, VariantNone before
// the first Probe.
func (b *Backend) Variants() xtables.Variants {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.families == nil {
		return xtables.Variants{}
	}
	return b.families.Variants()
}

// probeRules returns one rule of each kind, in all three tables.
func probeRules(ipv6 bool) []Rule {
	net := netip.MustParsePrefix("192.0.2.0/24")
	if ipv6 {
		net = netip.MustParsePrefix("2001:db8::/64")
	}
	pool := network.AddrRange{First: net.Addr(), Last: net.Addr().Next()}
	in := func(table string) Chain { return Chain{IPv6: ipv6, Table: table} }
	return []Rule{
		{Chain: in(tableNAT), Out: "lo", Source: net, Dest: net, NotDest: true, Protocol: "tcp", Target: targetMasquerade, ToPorts: defaultPorts},
		{Chain: in(tableNAT), Source: net, Dest: net, NotDest: true, Protocol: "udp", Target: targetSNAT, ToAddress: pool, ToPorts: defaultPorts},
		{Chain: in(tableNAT), Source: net, Dest: net, Target: targetReturn},
		{Chain: in(tableMangle), Out: "lo", Target: targetReturn},
		{Chain: in(tableFilter), In: "lo", Protocol: "udp", Port: 53, Target: targetAccept},
		{Chain: in(tableFilter), Dest: net, Out: "lo", Replies: true, Target: targetAccept},
		{Chain: in(tableFilter), Out: "lo", Target: targetReject},
	}
}

// trial returns the script that adds rules to the probe chain of their tables, and
// removes it. The removal is a commit of its own: the legacy variant sends the kernel
// only the result of one. All is one run, as most of its time is the program's start.
func trial(rules []Rule) string {
	byTable := map[string][]Rule{}
	for _, r := range rules {
		byTable[r.Table] = append(byTable[r.Table], r)
	}
	var put, remove strings.Builder
	for table, rules := range byTable {
		// It also empties a chain that a killed process left.
		fmt.Fprintf(&put, "*%s\n:%s - [0:0]\n", table, probeChain)
		for _, r := range rules {
			fmt.Fprintf(&put, "-A %s %s\n", probeChain, r.spec())
		}
		put.WriteString("COMMIT\n")
		remove.WriteString(removal(table))
	}
	return put.String() + remove.String()
}

func removal(table string) string {
	return "*" + table + "\n-F " + probeChain + "\n-X " + probeChain + "\nCOMMIT\n"
}

// removeTrial removes the probe chain after a trial that failed: the tables before
// the failing one have it.
func removeTrial(ctx context.Context, p xtables.Programs) error {
	ctx = context.WithoutCancel(ctx)
	tables, err := p.List(ctx)
	if err != nil {
		return fmt.Errorf("looking for the chain %s: %w", probeChain, err)
	}
	var script strings.Builder
	for _, t := range tables {
		if slices.Contains(t.Chains, probeChain) {
			script.WriteString(removal(t.Name))
		}
	}
	return p.Do(ctx, script.String())
}
