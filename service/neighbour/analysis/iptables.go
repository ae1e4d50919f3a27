package analysis

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// hooksOf returns the built-in chains of the tables of iptables that filter, with
// their hooks. Those of nat translate, and let pass.
func hooksOf(table string) (priority int, chains map[string]Hook) {
	switch table {
	case "raw":
		return -300, map[string]Hook{"PREROUTING": Prerouting, "OUTPUT": Output}
	case "mangle":
		return -150, map[string]Hook{"PREROUTING": Prerouting, "INPUT": Input, "FORWARD": Forward, "OUTPUT": Output, "POSTROUTING": Postrouting}
	case "filter":
		return 0, map[string]Hook{"INPUT": Input, "FORWARD": Forward, "OUTPUT": Output}
	case "security":
		return 50, map[string]Hook{"INPUT": Input, "FORWARD": Forward, "OUTPUT": Output}
	}
	return 0, nil
}

// FromIptables returns what a listing of iptables-save says. The command is that of the
// variant, for people: "iptables-legacy".
func FromIptables(listing []xtables.Table, ipv6 bool, command string) (tables []Table) {
	for _, l := range listing {
		priority, hooks := hooksOf(l.Name)
		if hooks == nil || l.Unreadable {
			continue
		}
		t := Table{Command: command, Name: l.Name, IPv6: ipv6, Chains: make(map[string][]Rule)}
		for _, name := range l.Chains {
			t.Chains[name] = nil
			if hook, ok := hooks[name]; ok {
				t.Bases = append(t.Bases, Base{Hook: hook, Priority: priority, Chain: name, Drops: l.Policies[name] == "DROP"})
			}
		}
		for _, r := range l.Rules {
			t.Chains[r.Chain] = append(t.Chains[r.Chain], parseRule(r, ipv6))
		}
		for name, rules := range t.Chains {
			for i, r := range rules {
				if _, user := t.Chains[r.Chain]; r.Action == Jump && !user {
					t.Chains[name][i].Action = Continue // a target that this does not know
				}
			}
		}
		tables = append(tables, t)
	}
	return tables
}

// ruleParser parses the words of a rule as iptables-save prints them.
type ruleParser struct {
	rule  Rule
	words []string
	not   bool
	ipv6  bool
}

func parseRule(r xtables.Rule, ipv6 bool) Rule {
	p := &ruleParser{rule: Rule{Text: r.Text}, words: xtables.SplitWords(r.Spec()), ipv6: ipv6}
	for len(p.words) > 0 && p.option(p.next()) {
	}
	return p.rule
}

func (p *ruleParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

func (p *ruleParser) test(t Test) {
	p.rule.Matches = append(p.rule.Matches, Match{Not: p.not, Test: t})
	p.not = false
}

// unknown notes an option that is not understood, and passes over its values.
func (p *ruleParser) unknown(option string) {
	if p.rule.Unknown == "" {
		p.rule.Unknown = option
	}
	p.not = false
	for len(p.words) > 0 && !strings.HasPrefix(p.words[0], "-") && p.words[0] != "!" {
		p.next()
	}
}

// option parses one option; more is false after the target, whose options change
// nothing of what is asked here.
func (p *ruleParser) option(word string) (more bool) {
	switch word {
	case "!":
		p.not = true
	case "-s", "-d":
		p.address(word)
	case "-i", "-o":
		name := p.next()
		stem, prefix := strings.CutSuffix(name, "+")
		p.test(Interface{Out: word == "-o", Name: stem, Prefix: prefix})
	case "-p":
		p.protocol(p.next())
	case "-f", "--physdev-is-bridged", "--physdev-in", "--physdev-out", "--physdev-is-in", "--physdev-is-out", "--rt-type":
		if strings.HasSuffix(word, "-in") || strings.HasSuffix(word, "-out") || word == "--rt-type" {
			p.skipValue()
		}
		p.test(Never{})
	case "-m":
		p.module(p.next())
	case "--comment":
		p.next()
	case "-j":
		p.target(p.next())
		return false
	case "-g":
		p.rule.Action, p.rule.Chain = Goto, p.next()
		return false
	default:
		p.moduleOption(word)
	}
	return true
}

// skipValue passes over an option's value, if it has one.
func (p *ruleParser) skipValue() {
	if len(p.words) > 0 && !strings.HasPrefix(p.words[0], "-") {
		p.next()
	}
}

// module handles modules that match something without an option.
func (p *ruleParser) module(name string) {
	switch name {
	case "limit", "recent", "hashlimit", "statistic", "connlimit", "quota", "nfacct", "socket", "bpf", "u32", "string", "time", "cluster", "ipvs", "osf", "policy", "cgroup", "owner", "dccp", "sctp", "ah", "esp", "helper", "realm":
		p.unknown("-m " + name)
	case "rpfilter":
		p.reversePath()
	}
}

// reversePath: packets with a forged source do not count among those that are
// entitled to anything, so the test of the reverse path holds.
func (p *ruleParser) reversePath() {
	for len(p.words) > 0 {
		switch p.words[0] {
		case "--invert":
			p.test(Never{})
		case "--loose", "--validmark", "--accept-local":
		default:
			return
		}
		p.next()
	}
}

func (p *ruleParser) moduleOption(word string) {
	switch word {
	case "--dport", "--dports":
		p.ports(Ports{Destination: true})
	case "--sport", "--sports":
		p.ports(Ports{Source: true})
	case "--ports":
		p.ports(Ports{Source: true, Destination: true})
	case "--state", "--ctstate":
		p.states(p.next())
	case "--icmp-type", "--icmpv6-type":
		p.icmp(p.next())
	case "--hl-eq", "--ttl-eq":
		if n, err := strconv.ParseUint(p.next(), 10, 8); err == nil {
			p.test(HopLimit{uint8(n)})
		}
	case "--tcp-flags":
		p.flags(p.next(), p.next())
	case "--syn":
		p.test(Flags{Mask: 0x17, Value: flagSYN})
	case "--src-type", "--dst-type":
		p.addressType(word == "--dst-type", p.next())
	case "--mark":
		p.mark(p.next())
	default:
		p.unknown(word)
	}
}

func (p *ruleParser) address(word string) {
	text := p.next()
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			p.unknown(word + " " + text)
			return
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	p.test(Address{Destination: word == "-d", Prefix: prefix})
}

func (p *ruleParser) protocol(name string) {
	numbers := map[string]uint8{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6, "icmpv6": unix.IPPROTO_ICMPV6,
		"sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE, "esp": unix.IPPROTO_ESP, "ah": unix.IPPROTO_AH, "gre": unix.IPPROTO_GRE, "igmp": unix.IPPROTO_IGMP,
	}
	number, ok := numbers[name]
	if !ok {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			p.unknown("-p " + name)
			return
		}
		number = uint8(n)
	}
	p.test(Protocol{number})
}

func (p *ruleParser) ports(t Ports) {
	text := p.next()
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			p.unknown("port " + text)
			return
		}
		t.Ranges = append(t.Ranges, [2]uint16{uint16(low), uint16(high)})
	}
	p.test(t)
}

func (p *ruleParser) states(text string) {
	var t State
	for part := range strings.SplitSeq(text, ",") {
		switch part {
		case "NEW":
			t.New = true
		case "ESTABLISHED":
			t.Established = true
		case "UNTRACKED":
			t.Untracked = true
		case "SNAT":
			p.unknown("--ctstate " + text)
			return
		}
	}
	p.test(t)
}

func (p *ruleParser) icmp(text string) {
	kind, _, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(kind, 10, 8)
	switch {
	case text == "any" || n == 255 && !p.ipv6:
	case err != nil:
		p.unknown("icmp type " + text)
	default:
		p.test(ICMP{uint8(n)})
	}
}

func (p *ruleParser) flags(mask, value string) {
	names := map[string]uint8{"FIN": 1, "SYN": flagSYN, "RST": 4, "PSH": 8, "ACK": flagACK, "URG": 32, "ALL": 63, "NONE": 0}
	var t Flags
	for name := range strings.SplitSeq(mask, ",") {
		t.Mask |= names[name]
	}
	for name := range strings.SplitSeq(value, ",") {
		t.Value |= names[name]
	}
	p.test(t)
}

func (p *ruleParser) addressType(destination bool, text string) {
	t := AddressType{Destination: destination}
	for part := range strings.SplitSeq(text, ",") {
		kind, ok := map[string]Kind{"UNICAST": Guest, "LOCAL": Host, "BROADCAST": Broadcast, "MULTICAST": Multicast, "UNSPEC": Nowhere, "ANYCAST": -1}[part]
		if !ok {
			p.unknown("address type " + text)
			return
		}
		t.Kinds = append(t.Kinds, kind)
	}
	p.test(t)
}

func (p *ruleParser) mark(text string) {
	m, ok := parseMark(text)
	if !ok {
		p.unknown("--mark " + text)
		return
	}
	p.test(m)
}

func parseMark(text string) (m MarkIs, ok bool) {
	value, mask, masked := strings.Cut(text, "/")
	v, err := strconv.ParseUint(value, 0, 32)
	all := uint64(1<<32 - 1)
	if masked && err == nil {
		all, err = strconv.ParseUint(mask, 0, 32)
	}
	return MarkIs{Value: uint32(v), Mask: uint32(all)}, err == nil
}

// target sets what the rule does. A name that is none of the kernel's targets is a
// chain's.
func (p *ruleParser) target(name string) {
	switch name {
	case "ACCEPT":
		p.rule.Action = Accept
	case "DROP":
		p.rule.Action = Drop
	case "REJECT":
		p.rule.Action = Reject
	case "RETURN":
		p.rule.Action = Return
	case "MARK", "CONNMARK":
		p.rule.Action = Mark
		if name == "MARK" && p.next() == "--set-xmark" {
			if m, ok := parseMark(p.next()); ok {
				p.rule.SetMark = &m
			}
		}
	case "QUEUE", "NFQUEUE", "SYNPROXY", "TARPIT":
		p.rule.Action = Queue
	default:
		p.rule.Action, p.rule.Chain = Jump, name
	}
}
