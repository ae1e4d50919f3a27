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
	// Sequentially: the thread decides which network namespace is used.
	var found [2]family
	for i := range found {
		var err error
		if found[i].Programs, err = xtables.Find(ctx, i == 1); err != nil {
			return err
		}
		found[i].Started = b.config.Started
	}
	noFill := false
	if !b.probed(found) {
		var err error
		if noFill, err = try(ctx, found); err != nil {
			return err
		}
		if !noFill { // else it may come yet, with a kernel module
			b.saveProbed(found)
		}
	}
	if noFill && !b.noFill {
		b.log.Warn("iptables has no CHECKSUM target here, so that guests which check it may not take DHCP answers")
	}
	b.families, b.noFill = found[:], noFill
	return nil
}

// try tests whether both families can do what the rules need. noFill reports that
// there is no CHECKSUM target, which is optional.
func try(ctx context.Context, both [2]family) (noFill bool, err error) {
	fill := Rule{Chain: Chain{Table: tableMangle}, Out: "lo", Protocol: "udp", Port: 68, Target: targetChecksum}
	for _, f := range both {
		rules := probeRules(f.IPv6)
		if !f.IPv6 {
			if f.try(ctx, append(rules, fill)) == nil {
				continue
			}
			noFill = true
		}
		if err := f.try(ctx, rules); err != nil {
			return noFill, fmt.Errorf("trying %s: %w", f, err)
		}
	}
	return noFill, nil
}

// Variants returns those of the programs that the backend uses, VariantNone before
// the first Probe.
func (b *Backend) Variants() xtables.Variants {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.families == nil {
		return xtables.Variants{}
	}
	return xtables.Variants{IPv4: b.families[0].Variant, IPv6: b.families[1].Variant}
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

// try adds rules to the probe chain of their tables, and removes it in any case.
// The removal is a commit of its own: the legacy variant sends the kernel only the
// result of one. All is one run, as most of its time is the program's start; if it
// fails, the tables before the failing one have the chain.
func (f family) try(ctx context.Context, rules []Rule) error {
	tables := map[string][]Rule{}
	for _, r := range rules {
		tables[r.Table] = append(tables[r.Table], r)
	}
	var put, remove strings.Builder
	for table, rules := range tables {
		// It also empties a chain that a killed process left.
		fmt.Fprintf(&put, "*%s\n:%s - [0:0]\n", table, probeChain)
		for _, r := range rules {
			fmt.Fprintf(&put, "-A %s %s\n", probeChain, r.spec())
		}
		put.WriteString("COMMIT\n")
		remove.WriteString(removal(table))
	}
	err := f.restore(ctx, put.String()+remove.String())
	if err == nil {
		return nil
	}
	errs := []error{err}
	for table := range tables {
		if f.hasTrial(ctx, table) {
			errs = append(errs, f.restore(context.WithoutCancel(ctx), removal(table)))
		}
	}
	return errors.Join(errs...)
}

func removal(table string) string {
	return "*" + table + "\n-F " + probeChain + "\n-X " + probeChain + "\nCOMMIT\n"
}

// hasTrial reports whether the chain exists after a failure.
func (f family) hasTrial(ctx context.Context, table string) bool {
	tables, err := f.List(context.WithoutCancel(ctx))
	return err == nil && slices.ContainsFunc(tables, func(t xtables.Table) bool {
		return t.Name == table && slices.Contains(t.Chains, probeChain)
	})
}
