package iptables

import (
	"fmt"
	"strconv"
	"strings"
)

// line is one rule of the kernel's.
type line struct {
	rule           Rule
	known          bool // rule says all that the line does
	target         string
	packets, bytes uint64
}

// listing is what the kernel holds of the tables that exist, both families.
type listing struct {
	chains map[Chain][]line // also the empty ones
}

// read adds what iptables-save -c printed for one family.
func (l *listing) read(out string, ipv6 bool) error {
	if l.chains == nil {
		l.chains = make(map[Chain][]line)
	}
	table := ""
	for text := range strings.Lines(out) {
		text = strings.TrimRight(text, "\n")
		if text == "" {
			continue
		}
		switch text[0] {
		case '#':
			if err := readable(text); err != nil {
				return err
			}
		case '*':
			table = text[1:]
		case ':':
			name, _, _ := strings.Cut(text[1:], " ")
			c := Chain{IPv6: ipv6, Table: table, Name: name}
			l.chains[c] = nil
		case '[':
			chain, rule, err := parseLine(text, table, ipv6)
			if err != nil {
				return err
			}
			l.chains[chain] = append(l.chains[chain], rule)
		}
	}
	return nil
}

// readable refuses a table that iptables-nft leaves out of what it prints, as
// it would look empty.
func readable(comment string) error {
	for _, table := range []string{tableFilter, tableNAT, tableMangle} {
		if strings.HasPrefix(comment, "# Table `"+table+"' is incompatible") {
			return fmt.Errorf("table %s has rules that iptables cannot read, made with nft: "+
				"move them to a table of another name, or use the nftables backend", table)
		}
	}
	return nil
}

// parseLine reads "[packets:bytes] -A CHAIN ...".
func parseLine(text, table string, ipv6 bool) (Chain, line, error) {
	words := splitWords(text)
	if len(words) < 3 || words[1] != "-A" {
		return Chain{}, line{}, fmt.Errorf("iptables-save printed %q, which is no rule", text)
	}
	chain := Chain{IPv6: ipv6, Table: table, Name: words[2]}
	var l line
	packets, bytes, _ := strings.Cut(strings.Trim(words[0], "[]"), ":")
	var err error
	if l.packets, err = strconv.ParseUint(packets, 10, 64); err == nil {
		l.bytes, err = strconv.ParseUint(bytes, 10, 64)
	}
	if err != nil {
		return Chain{}, line{}, fmt.Errorf("iptables-save printed %q, whose counters are no numbers: %w", text, err)
	}
	l.rule, l.known = parseRule(chain, words[3:])
	for i, w := range words[:len(words)-1] {
		if w == "-j" || w == "-g" {
			l.target = words[i+1]
		}
	}
	return chain, l, nil
}

// has says whether a chain exists.
func (l listing) has(c Chain) bool {
	_, ok := l.chains[c]
	return ok
}

// strangers are the rules in our chains that a goal says nothing of, and that
// another goal may.
func (l listing) strangers(g goal) map[Rule]bool {
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
