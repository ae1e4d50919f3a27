package iptables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// The tables that libvirt uses, in the order in which a change is made: traffic
// must be translated before it is accepted.
const (
	tableNAT    = "nat"
	tableMangle = "mangle"
	tableFilter = "filter"
)

// libvirt's chains.
const (
	ChainInput       = "LIBVIRT_INP" // guests to the host
	ChainOutput      = "LIBVIRT_OUT" // the host to guests
	ChainCross       = "LIBVIRT_FWX" // forwarded within one bridge
	ChainForwardIn   = "LIBVIRT_FWI" // forwarded to guests
	ChainForwardOut  = "LIBVIRT_FWO" // forwarded from guests
	ChainPostrouting = "LIBVIRT_PRT" // in nat and in mangle
)

// Chain is a chain of one family.
type Chain struct {
	IPv6        bool
	Table, Name string
}

// Rule is one of the rules that libvirt makes, as a comparable value: what iptables
// prints of a rule differs between its versions.
type Rule struct {
	Chain
	In, Out   string       // interfaces, "" for any
	Source    netip.Prefix // zero for any
	Dest      netip.Prefix // zero for any
	NotDest   bool         // all destinations but Dest
	Protocol  string       // tcp, udp, or "" for any
	Port      uint16       // destination port, 0 for any
	Replies   bool         // only established and related connections
	Target    string       // what -j names
	ToAddress network.AddrRange
	ToPorts   network.PortRange // of MASQUERADE and SNAT
}

// The targets in use beside libvirt's own chains.
const (
	targetAccept     = "ACCEPT"
	targetReject     = "REJECT"
	targetReturn     = "RETURN"
	targetMasquerade = "MASQUERADE"
	targetSNAT       = "SNAT"
	targetChecksum   = "CHECKSUM"
)

// spec returns the rule in the words and the order of iptables-save, without -A
// and chain.
func (r Rule) spec() string {
	var b strings.Builder
	word := func(words ...string) {
		for _, w := range words {
			b.WriteByte(' ')
			b.WriteString(w)
		}
	}
	if r.Source.IsValid() {
		word("-s", r.Source.String())
	}
	if r.Dest.IsValid() {
		if r.NotDest {
			word("!")
		}
		word("-d", r.Dest.String())
	}
	if r.In != "" {
		word("-i", quote(r.In))
	}
	if r.Out != "" {
		word("-o", quote(r.Out))
	}
	if r.Protocol != "" {
		word("-p", r.Protocol)
	}
	if r.Port != 0 {
		word("-m", r.Protocol, "--dport", fmt.Sprint(r.Port))
	}
	if r.Replies {
		word("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
	}
	word("-j", r.Target)
	word(r.targetOptions()...)
	return b.String()[1:]
}

func (r Rule) targetOptions() []string {
	switch r.Target {
	case targetReject:
		if r.IPv6 {
			return []string{"--reject-with", "icmp6-port-unreachable"}
		}
		return []string{"--reject-with", "icmp-port-unreachable"}
	case targetMasquerade:
		if !r.ToPorts.IsZero() {
			return []string{"--to-ports", portRange(r.ToPorts)}
		}
	case targetSNAT:
		return []string{"--to-source", r.toSource()}
	case targetChecksum:
		return []string{"--checksum-fill"}
	}
	return nil
}

// toSource returns the argument of --to-source. Brackets separate the colons of
// IPv6 from that of the ports.
func (r Rule) toSource() string {
	text := r.ToAddress.First.String()
	if r.ToAddress.Last != r.ToAddress.First {
		text = r.ToAddress.String()
	}
	if r.ToPorts.IsZero() {
		return text
	}
	if r.IPv6 {
		text = "[" + text + "]"
	}
	return text + ":" + portRange(r.ToPorts)
}

func portRange(r network.PortRange) string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// quote makes a name harmless in text. Check refuses the names that it changes, so
// that these are only printed.
func quote(name string) string {
	if xtables.IsPlain(name) {
		return name
	}
	harmless := strings.Map(func(c rune) rune {
		if xtables.IsWord(c) || strings.ContainsRune("-.", c) {
			return c
		}
		return '_'
	}, name)
	return `"` + harmless + `"`
}

// Check returns an error if a network cannot be put into iptables: iptables must
// read its interfaces' names unchanged.
func Check(n network.Network) error {
	for _, name := range append([]string{n.Bridge}, n.Devices...) {
		if !xtables.IsPlain(name) {
			return fmt.Errorf("network %q uses interface %q, whose name iptables cannot take safely: "+
				"rename the interface with letters, digits, _, - and ., or use the nftables backend", n.Name, name)
		}
	}
	return nil
}
