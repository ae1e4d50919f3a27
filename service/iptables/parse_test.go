package iptables

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// A rule with anything more than libvirt's have is another program's.
func TestForeignRules(t *testing.T) {
	for _, spec := range []string{
		"",
		"-i virbr1",
		"-g LIBVIRT_FWI",
		"! -i virbr1 -j ACCEPT",
		"-i virbr1 ! -o virbr1 -j ACCEPT",
		"! -s 10.0.0.0/24 -j ACCEPT",
		"-i virbr1 -p udp -m udp --sport 53 -j ACCEPT",
		"-i virbr1 -p udp -m udp --dport 53:54 -j ACCEPT",
		"-i virbr1 -p udp -m udp ! --dport 53 -j ACCEPT",
		"-i virbr1 -p icmp -j ACCEPT",
		"-p udp -m tcp --dport 53 -j ACCEPT",
		"-i virbr1 -m comment --comment x -j ACCEPT",
		"-i virbr1 -m conntrack --ctstate NEW -j ACCEPT",
		"-i virbr1 -m conntrack ! --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-o virbr1 -j REJECT --reject-with tcp-reset",
		"-o virbr1 -j REJECT --reject-with icmp6-port-unreachable",
		"-s 10.0.0.0/24 -j MASQUERADE --to-ports 1024-65535 --random",
		"-s fd00::/64 -j ACCEPT",
		"-s 10.0.0.0/24 -j SNAT",
		"-s 10.0.0.0/24 -j SNAT --to-source 10.0.0.1 --to-source 10.0.0.2",
		"-i virbr1 -i virbr2 -j ACCEPT",
		"-j ACCEPT !",
	} {
		if r, ok := parseRule(Chain{Table: tableFilter, Name: ChainForwardIn}, xtables.SplitWords(spec)); ok {
			t.Errorf("%q was taken for %+v", spec, r)
		}
	}
}

// What is parsed of a line is all of it: printed and parsed again, it is the same.
func FuzzParseLine(f *testing.F) {
	for _, n := range corpus(f) {
		for _, r := range Compile(n) {
			f.Add("[1:2] -A "+r.Name+" "+r.spec(), r.IPv6)
		}
	}
	f.Add(`[0:0] -A X -m comment --comment "a \" b" -j LOG --log-prefix "x "`, false)
	f.Add("[0:0] -A X -j SNAT --to-source 1.2.3.4:5", false)
	f.Fuzz(func(t *testing.T, text string, ipv6 bool) {
		if strings.Contains(text, "\n") {
			return
		}
		tables, err := xtables.Parse("*filter\n" + text)
		var l listing
		if err != nil || l.add(tables, ipv6) != nil {
			return
		}
		for chain, lines := range l.chains {
			for _, is := range lines {
				again, ok := parseRule(chain, xtables.SplitWords(is.rule.spec()))
				if is.known && (!ok || again != is.rule) {
					t.Errorf("%q: %+v printed as %q and read as %+v", text, is.rule, is.rule.spec(), again)
				}
			}
		}
	})
}
