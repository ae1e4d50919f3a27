package iptables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// newChain is the chain in which iptables-nft makes the rules that are then moved to
// their places. Nothing jumps to it.
const newChain = "VIRTFW_NEW"

// alteration is a network that stays and gets other rules.
type alteration struct{ old, now entry }

// replacement is what happens to one chain of it.
type replacement struct {
	chain  Chain
	rules  []Rule // the new ones
	anchor uint64 // the handle of the rule before which they go
	stale  []uint64
}

var errNoPlace = errors.New("the place of new rules has to be looked up")

// replacements compares a network's rules chain by chain. Where a rule stays, the new
// ones go to its place, else to that of the first.
func (h *handles) replacements(a alteration) (out []replacement, err error) {
	known := h.rules[a.old.network]
	if len(known) != len(a.old.rules) {
		return nil, errUnknownHandle
	}
	old, now := byChain(a.old.rules), byChain(a.now.rules)
	for _, c := range allChains() {
		if slices.Equal(old[c], now[c]) {
			continue
		}
		if len(old[c]) == 0 {
			return nil, errNoPlace
		}
		r := replacement{chain: c, rules: now[c]}
		stays := false
		for i, rule := range a.old.rules {
			if rule.Chain != c {
				continue
			}
			if known[i] == 0 {
				return nil, errUnknownHandle
			}
			if again := slices.Contains(now[c], rule); r.anchor == 0 || again && !stays {
				r.anchor, stays = known[i], again
			}
			r.stale = append(r.stale, known[i])
		}
		out = append(out, r)
	}
	return out, nil
}

// replaceKnown changes the rules of a network in their places, in one transaction of
// both families. iptables-nft makes the new rules in a chain of their own; to insert
// them in their places itself it would read all rules of these chains.
func (b *Backend) replaceKnown(ctx context.Context, a alteration) error {
	chains, err := b.handles.replacements(a)
	if err != nil {
		return err
	}
	conn, err := b.kernel(ctx)
	if err != nil {
		return err
	}
	l, err := b.listen()
	if err != nil {
		return err
	}
	defer l.stop()
	p, base, err := b.carryKnown(conn, a, chains)
	if err != nil {
		b.hangUp()
		return err
	}
	made, err := b.makeNew(ctx, l, chains, p.start)
	if err != nil {
		return err
	}
	moved := moves(chains, made)
	if moved.err != nil {
		return moved.err
	}
	if err := b.commit(conn, moved); err != nil {
		return fmt.Errorf("moving rules to their places: %w", err)
	}
	b.base[a.now.network] = base
	b.learnPlaced(l, a.now.network, chains)
	return nil
}

// learnPlaced remembers the handles of moved rules. If they are unknown, the network's
// next change lists all rules.
func (b *Backend) learnPlaced(l *listener, network string, chains []replacement) {
	made, err := l.made(1)
	for _, r := range chains {
		for i, rule := range r.rules {
			handle := uint64(0)
			if err == nil && len(made[r.chain]) == len(r.rules) {
				handle = made[r.chain][i].handle
			}
			b.handles.add(written{network, rule}, handle)
		}
	}
}

// carryKnown transfers counts to the new rules, as plan.carryCounts does.
func (b *Backend) carryKnown(conn *nfnl.Conn, a alteration, chains []replacement) (p plan, base ruleset.Counters, err error) {
	p = plan{start: make(map[Rule]count)}
	var seen, kept ruleset.Counters
	var inserted []Rule
	for _, r := range chains {
		inserted = append(inserted, r.rules...)
	}
	known := b.handles.rules[a.old.network]
	for i, rule := range a.old.rules {
		if !counted(rule.Chain) {
			continue
		}
		n, err := countOf(conn, rule.Chain, known[i])
		if err != nil {
			return p, base, err
		}
		add(&seen, classOf(rule), n)
		if !slices.ContainsFunc(chains, func(r replacement) bool { return r.chain == rule.Chain }) {
			add(&kept, classOf(rule), n)
		}
	}
	return p, p.assignCounts(b.total(a.now.network, seen), kept, inserted), nil
}

// makeNew has iptables-nft make rules in the chain for new ones of their tables.
func (b *Backend) makeNew(ctx context.Context, l *listener, chains []replacement, start map[Rule]count) (map[Chain][]announced, error) {
	var scripts [2]string
	programs := 0
	for i, p := range b.families.Both {
		scripts[i] = newRules(chains, p.IPv6, start)
		if scripts[i] != "" {
			programs++
		}
	}
	b.inSync = false // until the chain is gone
	if err := b.families.restore(ctx, scripts); err != nil {
		return nil, err
	}
	return l.made(programs)
}

// newRules returns the script that makes the new rules of a family.
func newRules(chains []replacement, ipv6 bool, start map[Rule]count) string {
	var b strings.Builder
	for _, table := range tables {
		var rules strings.Builder
		for _, r := range chains {
			for _, rule := range r.rules {
				if rule.IPv6 == ipv6 && rule.Table == table {
					fmt.Fprintf(&rules, "%s-A %s %s\n", counters(start[rule]), newChain, rule.spec())
				}
			}
		}
		if rules.Len() > 0 {
			// It also empties a chain that a killed process left.
			fmt.Fprintf(&b, "*%s\n:%s - [0:0]\n%sCOMMIT\n", table, newChain, rules.String())
		}
	}
	return b.String()
}

// batch collects the messages of a transaction.
type batch struct {
	messages []netlink.Message
	tables   []tableID
	err      error
}

func (b *batch) put(message int, flags netlink.HeaderFlags, c Chain, attrs ...netlink.Attribute) {
	m, err := nfnl.Request(message, flags, protocolFamily(c.IPv6), attrs)
	b.messages, b.err = append(b.messages, m), errors.Join(b.err, err)
	if !slices.Contains(b.tables, c.tableID()) {
		b.tables = append(b.tables, c.tableID())
	}
}

// rule adds a message about a rule, or all rules, of a chain.
func (b *batch) rule(message int, flags netlink.HeaderFlags, c Chain, attrs ...netlink.Attribute) {
	b.put(message, flags, c, slices.Concat([]netlink.Attribute{nfnl.Named(attrTable, c.Table), nfnl.Named(attrChain, c.Name)}, attrs)...)
}

// moves returns the messages that put the new rules in their places, and delete the
// stale ones and the chains for new ones.
func moves(chains []replacement, made map[Chain][]announced) (b batch) {
	for _, r := range chains {
		from := Chain{IPv6: r.chain.IPv6, Table: r.chain.Table, Name: newChain}
		if len(made[from]) < len(r.rules) {
			return batch{err: errOthers}
		}
		for i, rule := range r.rules {
			b.rule(unix.NFT_MSG_NEWRULE, netlink.Create, r.chain, movedRule(rule, made[from][i], r.anchor)...)
		}
		if len(r.rules) > 0 {
			made[from] = made[from][len(r.rules):]
		}
		for _, handle := range r.stale {
			b.rule(unix.NFT_MSG_DELRULE, 0, r.chain, handleAttribute(attrHandle, handle))
		}
	}
	for from := range made {
		const table, name = 1, 3 // NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME
		b.rule(unix.NFT_MSG_DELRULE, 0, from)
		b.put(unix.NFT_MSG_DELCHAIN, 0, from, nfnl.Named(table, from.Table), nfnl.Named(name, from.Name))
	}
	return b
}

// movedRule returns the attributes of a rule that goes before another one. The kernel
// announces no protocol, which iptables' own matches ask for.
func movedRule(rule Rule, n announced, before uint64) []netlink.Attribute {
	const compat, position = 5, 6 // NFTA_RULE_COMPAT, NFTA_RULE_POSITION
	attrs := []netlink.Attribute{{Type: attrExpressions | unix.NLA_F_NESTED, Data: n.expressions}, handleAttribute(position, before)}
	if number, has := map[string]uint32{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[rule.Protocol]; has {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: 1, Data: binary.BigEndian.AppendUint32(nil, number)}, // NFTA_RULE_COMPAT_PROTO
			{Type: 2, Data: binary.BigEndian.AppendUint32(nil, 0)},      // NFTA_RULE_COMPAT_FLAGS
		})
		if err == nil {
			attrs = append(attrs, netlink.Attribute{Type: compat | unix.NLA_F_NESTED, Data: data})
		}
	}
	return attrs
}

func handleAttribute(kind uint16, handle uint64) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint64(nil, handle)}
}

// countOf returns a rule's counter.
func countOf(conn *nfnl.Conn, c Chain, handle uint64) (n count, err error) {
	if handle == 0 {
		return n, errUnknownHandle
	}
	const name, data = 1, 2     // NFTA_EXPR_NAME, NFTA_EXPR_DATA
	const bytes, packets = 1, 2 // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
	attrs := []netlink.Attribute{nfnl.Named(attrTable, c.Table), nfnl.Named(attrChain, c.Name), handleAttribute(attrHandle, handle)}
	err = conn.Get(unix.NFT_MSG_GETRULE, protocolFamily(c.IPv6), attrs, func(body nfnl.Attributes) {
		for _, element := range nfnl.All(body.Get(attrExpressions)) {
			if e := nfnl.Attributes(element); e.Text(name) == "counter" {
				n = count{e.Get(data).Uint64(packets), e.Get(data).Uint64(bytes)}
			}
		}
	})
	if err != nil {
		return n, fmt.Errorf("reading the counter of a rule of %s: %w", c.Name, err)
	}
	return n, nil
}
