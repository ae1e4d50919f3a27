package analysis

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// NFT is a table of nf_tables, as the kernel lists it.
type NFT struct {
	Family byte // unix.NFPROTO_*
	Name   string
	Chains []NFTChain
	Sets   map[string]NFTSet
}

// NFTChain is one of its chains.
type NFTChain struct {
	Name     string
	Base     bool
	Type     string // of a base chain: filter, nat, route
	Hook     Hook   // which are numbered as the kernel's
	Priority int
	Drops    bool
	Rules    []NFTRule
}

// NFTRule is a rule, with NFTA_RULE_EXPRESSIONS.
type NFTRule struct {
	Handle      uint64
	Expressions []byte
}

// NFTSet is a set or map.
type NFTSet struct {
	Flags    uint32
	Elements []NFTElement
}

// NFTElement is an element of a set. End marks the first key after an interval.
type NFTElement struct {
	Key, KeyEnd []byte
	End         bool
	Verdict     int32
	Chain       string
}

// FamilyName returns nft's name of a family that packets are forwarded in; "" for others.
func FamilyName(family byte) string {
	return map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}[family]
}

// FromNFT returns what a table does to packets of a family. linkName returns the name
// of the interface with an index.
func FromNFT(n NFT, ipv6 bool, linkName func(uint32) string) (t Table, ok bool) {
	own := byte(unix.NFPROTO_IPV4)
	if ipv6 {
		own = unix.NFPROTO_IPV6
	}
	if n.Family != own && n.Family != unix.NFPROTO_INET {
		return Table{}, false
	}
	t = Table{Command: nft, Name: FamilyName(n.Family) + " " + n.Name, IPv6: ipv6, Chains: make(map[string][]Rule)}
	for _, c := range n.Chains {
		if c.Base && c.Type != "nat" && c.Hook <= Postrouting {
			t.Bases = append(t.Bases, Base{Hook: c.Hook, Priority: c.Priority, Chain: c.Name, Drops: c.Drops})
		}
		rules := []Rule{}
		for _, r := range c.Rules {
			d := &nftDecoder{ipv6: ipv6, sets: n.Sets, linkName: linkName, loaded: make(map[uint32]load), values: make(map[uint32][]byte)}
			rules = append(rules, d.rule(r)...)
		}
		t.Chains[c.Name] = rules
	}
	return t, len(t.Bases) > 0
}

// nftDecoder decodes one rule.
type nftDecoder struct {
	ipv6     bool
	sets     map[string]NFTSet
	linkName func(uint32) string
	loaded   map[uint32]load   // by the register's first 32 bits
	values   map[uint32][]byte // that are no fields

	matches []Match
	unknown string
	out     []Rule
	text    string
}

// rule returns a rule as those that together do the same: one for each element of a
// map of verdicts that it looks up.
func (d *nftDecoder) rule(r NFTRule) []Rule {
	d.text = fmt.Sprintf("handle %d", r.Handle)
	for _, item := range nfnl.All(r.Expressions) {
		e := nfnl.Attributes(item)
		d.expression(e.Text(unix.NFTA_EXPR_NAME), e.Get(unix.NFTA_EXPR_DATA))
	}
	return d.out
}

// do adds what happens to packets that have matched until now.
func (d *nftDecoder) do(action Action, chain string, more ...Match) {
	d.out = append(d.out, Rule{Matches: slices.Concat(d.matches, more), Unknown: d.unknown, Action: action, Chain: chain, Text: d.text})
}

func (d *nftDecoder) expression(name string, e nfnl.Attributes) {
	switch name {
	case "counter", "log", "last", "notrack", "secmark", "objref", "nat", "masq", "redir", "flow_offload":
	case "immediate":
		d.immediate(e.Uint32(unix.NFTA_IMMEDIATE_DREG), e.Get(unix.NFTA_IMMEDIATE_DATA))
	case "meta":
		d.meta(e)
	case "payload":
		d.payload(e)
	case "ct":
		if e.Has(unix.NFTA_CT_SREG) {
			return
		}
		known := map[uint32]fieldKind{unix.NFT_CT_STATE: fieldState, unix.NFT_CT_STATUS: fieldStatus}
		d.load(e.Uint32(unix.NFTA_CT_DREG), load{field: known[e.Uint32(unix.NFTA_CT_KEY)], length: 4})
	case "fib":
		d.fib(e)
	case "bitwise":
		d.bitwise(e)
	case "cmp":
		d.compare(e)
	case "range":
		d.between(e)
	case "lookup":
		d.lookup(e)
	case "reject":
		d.do(Reject, "")
	case "queue", "synproxy", "tproxy", "fwd", "dup", "target":
		d.do(Queue, "")
	default:
		d.notUnderstood(name)
	}
}

// immediate is a verdict, or a value for what follows.
func (d *nftDecoder) immediate(to uint32, data nfnl.Attributes) {
	if to != unix.NFT_REG_VERDICT {
		d.values[register(to)] = data.Get(unix.NFTA_DATA_VALUE)
		d.load(to, load{})
		return
	}
	v := data.Get(unix.NFTA_DATA_VERDICT)
	d.verdict(int32(v.Uint32(unix.NFTA_VERDICT_CODE)), v.Text(unix.NFTA_VERDICT_CHAIN))
}

// notUnderstood makes the rule one that may match or not.
func (d *nftDecoder) notUnderstood(what string) {
	if d.unknown == "" {
		d.unknown = what
	}
}

// Verdicts that have no name in unix.
const (
	nfDrop   = 0
	nfAccept = 1
)

func (d *nftDecoder) verdict(code int32, chain string, more ...Match) {
	switch code {
	case nfDrop:
		d.do(Drop, "", more...)
	case nfAccept:
		d.do(Accept, "", more...)
	case unix.NFT_RETURN:
		d.do(Return, "", more...)
	case unix.NFT_JUMP:
		d.do(Jump, chain, more...)
	case unix.NFT_GOTO:
		d.do(Goto, chain, more...)
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
	default:
		d.do(Queue, "", more...)
	}
}

// register returns where a register begins, in 32 bits: each has two names.
func register(number uint32) uint32 {
	if number >= unix.NFT_REG32_00 {
		return number - unix.NFT_REG32_00
	}
	return (number - unix.NFT_REG_1) * 4
}

func (d *nftDecoder) load(number uint32, l load) {
	d.loaded[register(number)] = l
}

// lookup matches a set, or goes by a map of verdicts.
func (d *nftDecoder) lookup(e nfnl.Attributes) {
	set, known := d.sets[e.Text(unix.NFTA_LOOKUP_SET)]
	if !known {
		d.notUnderstood("a set")
		return
	}
	keys, ok := d.keys(set, register(e.Uint32(unix.NFTA_LOOKUP_SREG)))
	if !ok {
		keys = nil
		for _, element := range set.Elements {
			keys = append(keys, key{element, []Test{Perhaps{}}})
		}
	}
	if !e.Has(unix.NFTA_LOOKUP_DREG) {
		var found AnyOf
		for _, k := range keys {
			found.Of = append(found.Of, k.tests)
		}
		d.matches = append(d.matches, Match{Not: e.Uint32(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0, Test: found})
		return
	}
	if e.Uint32(unix.NFTA_LOOKUP_DREG) != unix.NFT_REG_VERDICT {
		d.load(e.Uint32(unix.NFTA_LOOKUP_DREG), load{field: fieldOther})
		d.matches = append(d.matches, Match{Test: Perhaps{}}) // not found, it goes no further
		return
	}
	for _, k := range keys {
		d.verdict(k.Verdict, k.Chain, Match{Test: AnyOf{Of: [][]Test{k.tests}}})
	}
}
