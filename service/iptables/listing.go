package iptables

import (
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// line is one rule in the kernel.
type line struct {
	rule           Rule
	known          bool // rule describes the line completely
	target         string
	packets, bytes uint64
}

// listing is what the kernel holds of the tables that exist, both families.
type listing struct {
	chains map[Chain][]line // also the empty ones
}

// add adds tables of one family. It refuses a table that iptables-nft cannot
// print, as it would look empty.
func (l *listing) add(tables []xtables.Table, ipv6 bool) error {
	if l.chains == nil {
		l.chains = make(map[Chain][]line)
	}
	for _, t := range tables {
		if t.Unreadable && (t.Name == tableFilter || t.Name == tableNAT || t.Name == tableMangle) {
			return fmt.Errorf("table %s has rules that iptables cannot read, made with nft: "+
				"move them to a table of another name, or use the nftables backend", t.Name)
		}
		for _, name := range t.Chains {
			l.chains[Chain{IPv6: ipv6, Table: t.Name, Name: name}] = nil
		}
		for _, r := range t.Rules {
			c := Chain{IPv6: ipv6, Table: t.Name, Name: r.Chain}
			l.chains[c] = append(l.chains[c], lineOf(r, c))
		}
	}
	return nil
}

// lineOf parses a rule of a chain as far as possible.
func lineOf(r xtables.Rule, c Chain) line {
	words := xtables.SplitWords(r.Spec())
	l := line{packets: r.Packets, bytes: r.Bytes}
	l.rule, l.known = parseRule(c, words)
	for i, w := range words {
		if (w == "-j" || w == "-g") && i+1 < len(words) {
			l.target = words[i+1]
		}
	}
	return l
}

// has reports whether a chain exists.
func (l listing) has(c Chain) bool {
	_, ok := l.chains[c]
	return ok
}

// unmanaged returns the rules in our chains that are not in a goal, but could be in
// another.
func (l listing) unmanaged(g goal) map[Rule]bool {
	out := make(map[Rule]bool)
	for _, c := range allChains() {
		for _, line := range l.chains[c] {
			if _, ours := g.owner(line); line.known && !ours {
				out[line.rule] = true
			}
		}
	}
	return out
}
