package analysis

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
)

// tool is a program that is known by its chains.
type tool struct{ prefix, name string }

// tools returns the programs whose chains are known.
func tools() []tool {
	return []tool{
		{"ufw-", "ufw"}, {"ufw6-", "ufw"}, {"DOCKER", "Docker"}, {"KUBE-", "Kubernetes"}, {"CNI-", "podman"}, {"NETAVARK", "podman"},
		{"f2b-", "fail2ban"}, {"ts-", "tailscale"}, {"LIBVIRT_", "libvirt"}, {"cali-", "Calico"}, {"IN_", "firewalld"}, {"FWD", "firewalld"},
		{"INPUT_ZONES", "firewalld"}, {"FORWARD_", "firewalld"}, {"logdrop", "shorewall"}, {"sfilter", "shorewall"},
	}
}

// toolOf names the program whose chains have a prefix in common with one of these.
func toolOf(chains ...string) string {
	for _, t := range tools() {
		if slices.ContainsFunc(chains, func(c string) bool { return strings.HasPrefix(c, t.prefix) }) {
			return t.name
		}
	}
	return ""
}

// Explanation is what stops a network's traffic, for people.
type Explanation struct{ Summary, Evidence, Remedy string }

// Explain says what cuts a network's flows, and what helps.
func Explain(tables []Table, cuts []Cut) Explanation {
	var who, flows, evidence, remedies []string
	for _, c := range cuts {
		name := Culprit(tables, c.At)
		who = appendNew(who, name)
		flows = appendNew(flows, c.Flow)
		evidence = appendNew(evidence, fmt.Sprintf("%s: %s", c.Flow, c.At))
		for _, r := range remedy(tables, c) {
			remedies = appendNew(remedies, r)
		}
	}
	stop := "stops"
	if len(who) > 1 {
		stop = "stop"
	}
	return Explanation{
		Summary:  fmt.Sprintf("%s %s what the network is entitled to: %s", and(who), stop, and(flows)),
		Evidence: strings.Join(evidence, "\n"),
		Remedy:   strings.Join(remedies, "; "),
	}
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func and(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// String names the rule or policy.
func (a At) String() string {
	if a.Command == nft && a.Rule == "" {
		return fmt.Sprintf("nft table %s, chain %s, its policy", a.Table, a.Chain)
	}
	if a.Command == nft {
		return fmt.Sprintf("nft table %s, chain %s, rule with %s", a.Table, a.Chain, a.Rule)
	}
	if a.Rule == "" {
		return fmt.Sprintf("%s, table %s, policy of chain %s", a.Command, a.Table, a.Chain)
	}
	return fmt.Sprintf("%s, table %s: %s", a.Command, a.Table, a.Rule)
}

// Culprit names the program whose rule or policy it is, as far as its chains tell.
func Culprit(tables []Table, at At) string {
	if name := toolOf(at.Chain); name != "" {
		return name
	}
	if name := toolOf(tableOf(tables, at).names()...); name != "" {
		return name
	}
	if at.Command == nft {
		return "nft table " + at.Table
	}
	if at.Rule == "" {
		return "a policy of " + at.Command
	}
	return "a rule of " + at.Command
}

func tableOf(tables []Table, at At) Table {
	for _, t := range tables {
		if t.Command == at.Command && t.Name == at.Table {
			return t
		}
	}
	return Table{}
}

func (t Table) names() (out []string) {
	for name := range t.Chains {
		out = append(out, name)
	}
	return out
}

// nft is the command of tables that are not iptables'.
const nft = "nft"

// remedy returns the commands that let a flow pass.
func remedy(tables []Table, c Cut) []string {
	if c.Command == nft {
		return nftRemedy(c)
	}
	p, t := c.Packet, tableOf(tables, c.At)
	ufw := toolOf(t.names()...) == "ufw" && c.Table == "filter"
	if p.Way == Forward {
		if p.Reply {
			p.In, p.Out = p.Out, p.In
		}
		return forwardRemedy(t, c.At, ufw, finding.Quoted(p.In), finding.Quoted(p.Out))
	}
	bridge := finding.Quoted(p.In)
	proto := map[uint8]string{6: "tcp", 17: "udp"}[p.Proto]
	switch {
	case ufw && proto != "":
		return []string{fmt.Sprintf("ufw allow in on %s to any port %d proto %s", bridge, p.DstPort, proto)}
	case proto != "":
		return []string{fmt.Sprintf("%s -t %s -I %s -i %s -p %s --dport %d -j ACCEPT", c.Command, c.Table, c.Base, bridge, proto, p.DstPort)}
	}
	return []string{fmt.Sprintf("%s -t %s -I %s -i %s -p ipv6-icmp -j ACCEPT", c.Command, c.Table, c.Base, bridge)}
}

func forwardRemedy(t Table, at At, ufw bool, bridge, uplink string) []string {
	if ufw {
		return []string{fmt.Sprintf("ufw route allow in on %s out on %s", bridge, uplink)}
	}
	chain := at.Base
	if _, ok := t.Chains["DOCKER-USER"]; ok && at.Table == "filter" {
		chain = "DOCKER-USER" // that Docker leaves to others
	}
	insert := fmt.Sprintf("%s -t %s -I %s", at.Command, at.Table, chain)
	const replies = " -m conntrack --ctstate RELATED,ESTABLISHED"
	switch at.Hook {
	case Prerouting: // which knows no output interface
		return []string{insert + " -i " + bridge + " -j ACCEPT", insert + " -i " + uplink + replies + " -j ACCEPT"}
	case Postrouting: // nor the other one
		return []string{insert + " -o " + uplink + " -j ACCEPT", insert + " -o " + bridge + replies + " -j ACCEPT"}
	}
	return []string{
		insert + " -i " + bridge + " -o " + uplink + " -j ACCEPT",
		insert + " -i " + uplink + " -o " + bridge + replies + " -j ACCEPT",
	}
}

// nftRemedy returns the same for a table of nft.
func nftRemedy(c Cut) []string {
	p := c.Packet
	var words []string
	for _, name := range append(strings.Fields(c.Table), c.Base) {
		words = append(words, finding.Quoted(name))
	}
	insert := "nft insert rule " + strings.Join(words, " ")
	if p.Way == Forward {
		if p.Reply {
			p.In, p.Out = p.Out, p.In
		}
		return []string{
			insert + nftInterfaces(c.Hook, p.In, p.Out) + " accept",
			insert + nftInterfaces(c.Hook, p.Out, p.In) + " ct state established,related accept",
		}
	}
	on := insert + " iifname " + nftName(p.In)
	switch p.Proto {
	case unix.IPPROTO_TCP:
		return []string{fmt.Sprintf("%s tcp dport %d accept", on, p.DstPort)}
	case unix.IPPROTO_UDP:
		return []string{fmt.Sprintf("%s udp dport %d accept", on, p.DstPort)}
	}
	return []string{on + " meta l4proto ipv6-icmp accept"}
}

func nftInterfaces(at Hook, in, out string) string {
	if at == Prerouting { // which knows no output interface
		return " iifname " + nftName(in)
	}
	return " iifname " + nftName(in) + " oifname " + nftName(out)
}

// nftName returns an interface's name as one of nft's words, for a shell.
func nftName(name string) string {
	if finding.Quoted(name) == name {
		return name
	}
	return finding.Quoted(`"` + name + `"`)
}
