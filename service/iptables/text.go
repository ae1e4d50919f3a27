package iptables

import (
	"context"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Text returns the input of iptables-restore --noflush and then ip6tables-restore
// --noflush on a host with no rules of libvirt's, for networks that are started in
// this order.
func Text(nets ...network.Network) string {
	chains := make(map[Chain][]Rule)
	for _, n := range nets {
		for c, rules := range byChain(Compile(n)) {
			chains[c] = append(slices.Clone(rules), chains[c]...)
		}
	}
	if len(chains) == 0 {
		return ""
	}
	var b strings.Builder
	for _, ipv6 := range []bool{false, true} {
		b.WriteString(heading(ipv6))
		for _, table := range tables {
			b.WriteString("*" + table + "\n")
			for _, h := range hooks {
				if h.table == table {
					b.WriteString(":" + h.chain + " - [0:0]\n")
				}
			}
			for _, h := range slices.Backward(hooks[:]) {
				if h.table == table {
					b.WriteString("-I " + h.parent + " " + h.jump(ipv6).spec() + "\n")
				}
			}
			writeRules(&b, chains, ipv6, table)
			b.WriteString("COMMIT\n")
		}
	}
	return b.String()
}

var tables = [...]string{tableNAT, tableMangle, tableFilter}

func heading(ipv6 bool) string {
	if ipv6 {
		return "# IPv6: ip6tables-restore --noflush\n"
	}
	return "# IPv4: iptables-restore --noflush\n"
}

func writeRules(b *strings.Builder, chains map[Chain][]Rule, ipv6 bool, table string) {
	for _, h := range hooks {
		if h.table != table {
			continue
		}
		for _, r := range slices.Concat(chains[h.of(ipv6)], chains[h.of(ipv6).beside()]) {
			b.WriteString("-A " + r.Name + " " + r.spec() + "\n")
		}
	}
}

// Text returns what the kernel holds of one network's rules, IPv4 then IPv6, "" for
// nothing.
func (b *Backend) Text(ctx context.Context, name string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return "", err
	}
	l, err := b.families.list(ctx)
	if err != nil {
		return "", err
	}
	g := b.goal(b.installed, "")
	var out strings.Builder
	for _, ipv6 := range []bool{false, true} {
		var family strings.Builder
		for _, table := range tables {
			var rules strings.Builder
			writeRules(&rules, ownedBy(l, g, name), ipv6, table)
			if rules.Len() > 0 {
				family.WriteString("*" + table + "\n" + rules.String() + "COMMIT\n")
			}
		}
		if family.Len() > 0 {
			out.WriteString(heading(ipv6) + family.String())
		}
	}
	return out.String(), nil
}

func ownedBy(l listing, g goal, name string) map[Chain][]Rule {
	chains := make(map[Chain][]Rule)
	for c, lines := range l.chains {
		for _, line := range lines {
			if network, ours := g.owner(line); ours && network == name {
				chains[c] = append(chains[c], line.rule)
			}
		}
	}
	return chains
}
