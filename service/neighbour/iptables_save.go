package neighbour

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// chainInfo is where a chain of libvirt's is entered, and what it is for.
type chainInfo struct {
	hook string
	role role
}

// libvirtChain returns what a chain of libvirt's is; ok is false for other chains.
func libvirtChain(table, chain string) (chainInfo, bool) {
	switch table + " " + chain {
	case "filter LIBVIRT_INP":
		return chainInfo{"INPUT", roleInput}, true
	case "filter LIBVIRT_OUT":
		return chainInfo{"OUTPUT", roleOutput}, true
	case "filter LIBVIRT_FWX":
		return chainInfo{"FORWARD", roleCross}, true
	case "filter LIBVIRT_FWI":
		return chainInfo{"FORWARD", roleTo}, true
	case "filter LIBVIRT_FWO":
		return chainInfo{"FORWARD", roleFrom}, true
	case "nat LIBVIRT_PRT":
		return chainInfo{"POSTROUTING", roleNAT}, true
	case "mangle LIBVIRT_PRT":
		return chainInfo{"POSTROUTING", roleMangle}, true
	}
	return chainInfo{}, false
}

// finding is what was found of libvirt's in one variant of iptables or table.
type finding struct {
	where    string
	networks map[string]int // rules for each network
	gone     []string       // chains and tables that are removed with them
	kept     []string       // rules for our bridges that libvirt did not make
	chains   bool           // chains of libvirt's exist
}

func (f *finding) addRules(network string, rules int) {
	if f.networks == nil {
		f.networks = make(map[string]int)
	}
	f.networks[network] += rules
}

func (f *finding) rules() int {
	n := 0
	for _, k := range f.networks {
		n += k
	}
	return n
}

// removal finds what libvirt left for the targets in tables, and returns the script
// for iptables-restore that removes it. With chains, it also removes those of
// libvirt's that end up empty and that nothing else uses.
func removal(tables []xtables.Table, ipv6 bool, t targets, chains bool) (script string, f finding) {
	var b strings.Builder
	for _, table := range tables {
		if out := removalIn(table, ipv6, t, chains, &f); out != "" {
			b.WriteString("*" + table.Name + "\n" + out + "COMMIT\n")
		}
	}
	return b.String(), f
}

func removalIn(table xtables.Table, ipv6 bool, t targets, chains bool, f *finding) string {
	var b strings.Builder
	inUse := make(map[string]bool)
	jumps := make(map[string]int)
	f.chains = f.chains || slices.ContainsFunc(table.Chains, func(chain string) bool {
		_, libvirts := libvirtChain(table.Name, chain)
		return libvirts
	})
	for _, r := range table.Rules {
		if network, ok := classify(iptables.Chain{IPv6: ipv6, Table: table.Name, Name: r.Chain}, r, t, f); ok {
			f.addRules(network, 1)
			b.WriteString(r.Deletion())
			continue
		}
		if target, ok := hookJump(table.Name, r); ok {
			jumps[target]++
			continue
		}
		inUse[r.Chain] = true
		if strings.Contains(r.Spec(), "LIBVIRT_") {
			for _, word := range words(r.Spec()) {
				inUse[word] = true // as a target, or whatever else it may be
			}
		}
	}
	if !chains {
		return b.String()
	}
	for _, chain := range table.Chains {
		h, ok := libvirtChain(table.Name, chain)
		if !ok || inUse[chain] {
			continue
		}
		b.WriteString(strings.Repeat("-D "+h.hook+" -j "+chain+"\n", jumps[chain]) + "-X " + chain + "\n")
		f.gone = append(f.gone, table.Name+" "+chain)
	}
	return b.String()
}

// classify reports whether libvirt made a rule for one of the targets. It records
// in kept a rule that concerns a target and that libvirt did not make.
func classify(chain iptables.Chain, r xtables.Rule, t targets, f *finding) (network string, ok bool) {
	h, ok := libvirtChain(chain.Table, chain.Name)
	if !ok {
		return "", false
	}
	// A rule with quotes around a word is not libvirt's.
	words := strings.Fields(r.Spec())
	read, ok := ruleOf(chain, words)
	if ok {
		network, ok = t.owner(read, h.role)
	}
	if !ok && t.concerns(words...) {
		f.kept = append(f.kept, chain.Table+": "+r.Text)
	}
	return network, ok
}

// hookJump recognises libvirt's own jump to one of its chains.
func hookJump(table string, r xtables.Rule) (chain string, ok bool) {
	chain, ok = strings.CutPrefix(r.Spec(), "-j ")
	h, known := libvirtChain(table, chain)
	return chain, ok && known && r.Chain == h.hook
}

// words returns everything that a rule may name, also in quotes.
func words(line string) []string {
	return strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t\"'\\", c) })
}

// ruleOf parses a rule of a kind that libvirt makes.
func ruleOf(chain iptables.Chain, words []string) (r rule, ok bool) {
	read, ok := iptables.ReadRule(chain, words)
	r = rule{
		in: read.In, out: read.Out, src: read.Source, dst: read.Dest, notDst: read.NotDest,
		port: read.Port, replies: read.Replies,
	}
	switch read.Protocol {
	case "tcp":
		r.proto = unix.IPPROTO_TCP
	case "udp":
		r.proto = unix.IPPROTO_UDP
	}
	switch read.Target {
	case "ACCEPT":
		r.action = actionAccept
	case "RETURN":
		r.action = actionReturn
	case "REJECT":
		r.action = actionReject
	case "MASQUERADE", "SNAT":
		r.action = actionTranslate
	case "CHECKSUM":
		r.action = actionChecksum
	}
	return r, ok && r.action != actionNone
}
