package iptables

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// ReadRule parses the words of a rule as iptables-save prints them, after -A and
// the chain. ok is false for a rule with anything that libvirt's rules lack: it is
// another program's.
func ReadRule(chain Chain, words []string) (r Rule, ok bool) {
	r = Rule{Chain: chain}
	p := ruleParser{words: words, rule: &r}
	for len(p.words) > 0 {
		if !p.option() {
			return Rule{}, false
		}
	}
	return r, !p.not
}

// parseRule is ReadRule for rules that the backend may have made.
func parseRule(chain Chain, words []string) (r Rule, ok bool) {
	r, ok = ReadRule(chain, words)
	return r, ok && r.complete()
}

// complete reports whether spec prints the rule in full.
func (r Rule) complete() bool {
	reject := r.Target == targetReject
	snat := r.Target == targetSNAT
	for _, name := range []string{r.In, r.Out} {
		if name != "" && !xtables.IsPlain(name) {
			return false
		}
	}
	return xtables.IsPlain(r.Target) && (r.Port == 0 || r.Protocol != "") && (!r.NotDest || r.Dest.IsValid()) &&
		snat == !r.ToAddress.IsZero() && (reject || snat || r.Target == targetMasquerade || r.ToPorts.IsZero()) &&
		(!reject || r.ToPorts.IsZero())
}

type ruleParser struct {
	words []string
	rule  *Rule
	not   bool // a negation is waiting for its option
}

// next returns the next word; "" if there is none, which no option accepts.
func (p *ruleParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

// option parses one option and its arguments. Each option may occur only once.
func (p *ruleParser) option() bool {
	r, name := p.rule, p.next()
	if p.not && name != "-d" {
		return false
	}
	switch name {
	case "!":
		p.not = true
		return true
	case "-s":
		return p.prefix(&r.Source)
	case "-d":
		r.NotDest, p.not = p.not, false
		return p.prefix(&r.Dest)
	case "-i":
		return p.word(&r.In)
	case "-o":
		return p.word(&r.Out)
	case "-p":
		return p.word(&r.Protocol) && (r.Protocol == "tcp" || r.Protocol == "udp")
	case "-m":
		module := p.next()
		return module == "conntrack" || module != "" && module == r.Protocol
	case "--dport":
		return r.Port == 0 && parsePort(p.next(), &r.Port) && r.Port != 0
	case "--ctstate":
		states := p.next()
		r.Replies = states == "RELATED,ESTABLISHED" || states == "ESTABLISHED,RELATED"
		return r.Replies
	case "-j":
		return p.word(&r.Target)
	}
	return p.targetOption(name)
}

func (p *ruleParser) targetOption(name string) bool {
	r := p.rule
	switch name {
	case "--reject-with":
		with := p.next()
		if r.IPv6 {
			return with == "icmp6-port-unreachable"
		}
		return with == "icmp-port-unreachable"
	case "--to-ports":
		return r.Target == targetMasquerade && r.ToPorts.IsZero() && parsePorts(p.next(), &r.ToPorts)
	case "--to-source":
		return r.Target == targetSNAT && r.ToAddress.IsZero() && p.toSource()
	case "--checksum-fill":
		return r.Target == targetChecksum
	}
	return false
}

func (p *ruleParser) word(into *string) bool {
	if *into != "" {
		return false
	}
	*into = p.next()
	return *into != ""
}

func (p *ruleParser) prefix(into *netip.Prefix) bool {
	if into.IsValid() {
		return false
	}
	text := p.next()
	prefix, err := netip.ParsePrefix(text)
	if addr, errAddr := netip.ParseAddr(text); errAddr == nil {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	*into = prefix
	return err == nil && prefix.Addr().Is6() == p.rule.IPv6
}

// toSource parses ADDRESS[-ADDRESS][:PORTS], where IPv6 is in brackets if there
// are ports.
func (p *ruleParser) toSource() bool {
	r, text, ports, has := p.rule, p.next(), "", false
	if inner, bracketed := strings.CutPrefix(text, "["); bracketed {
		if text, ports, has = strings.Cut(inner, "]:"); !has {
			return false
		}
	} else if !r.IPv6 {
		text, ports, has = strings.Cut(text, ":")
	}
	if has && !parsePorts(ports, &r.ToPorts) {
		return false
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	a, errA := netip.ParseAddr(first)
	z, errZ := netip.ParseAddr(last)
	r.ToAddress = network.AddrRange{First: a, Last: z}
	return errA == nil && errZ == nil && a.Is6() == r.IPv6 && z.Is6() == r.IPv6
}

func parsePort(text string, into *uint16) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	*into = uint16(n)
	return err == nil
}

func parsePorts(text string, into *network.PortRange) bool {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	return parsePort(first, &into.First) && parsePort(last, &into.Last) && !into.IsZero()
}
