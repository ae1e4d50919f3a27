package rig

import (
	"fmt"
	"slices"
	"strings"
)

// LibvirtRules returns what libvirt 11.3's nftables backend puts into the kernel
// for the village: two family tables with flat chains, each later network
// above the earlier ones, and within forward the destination's chain before the
// source's.
func LibvirtRules() string {
	var b strings.Builder
	for _, family := range []string{"ip", "ip6"} {
		chains := map[string][]string{}
		for i, v := range Village {
			for chain, rules := range libvirtNetwork(family, i+1, v.Name, v.Bridge) {
				chains[chain] = append(rules, chains[chain]...)
			}
		}
		fmt.Fprintf(&b, "table %s libvirt_network {\n", family)
		for _, chain := range []string{"guest_cross", "guest_input", "guest_output"} {
			fmt.Fprintf(&b, "chain %s {\n%s\n}\n", chain, strings.Join(chains[chain], "\n"))
		}
		b.WriteString("chain forward { type filter hook forward priority 0; policy accept; jump guest_cross; jump guest_input; jump guest_output; }\n")
		fmt.Fprintf(&b, "chain guest_nat { type nat hook postrouting priority 100; policy accept;\n%s\n}\n}\n", strings.Join(chains["guest_nat"], "\n"))
	}
	return b.String()
}

// libvirtNetwork is one network's rules of one family, by chain.
func libvirtNetwork(family string, number int, name, bridge string) map[string][]string {
	if name == "open" {
		return nil
	}
	net, multicast := fmt.Sprintf("10.%d.0.0/24", number), []string{"224.0.0.0/24", "255.255.255.255"}
	if family == "ip6" {
		net, multicast = fmt.Sprintf("2001:db8:%d::/64", number), []string{"ff02::/16"}
	}
	in, out := "", ""
	if strings.HasSuffix(name, "-wan") {
		in, out = "iifname wan0 ", "oifname wan0 "
	}
	nat := strings.HasPrefix(name, "nat") && !(family == "ip6" && name == "nat-v6-routed")
	rules := map[string][]string{
		"guest_cross":  {fmt.Sprintf("iif %s oif %s accept", bridge, bridge)},
		"guest_input":  {fmt.Sprintf("oif %s reject", bridge)},
		"guest_output": {fmt.Sprintf("iif %s reject", bridge)},
	}
	if name == "isolated" {
		return rules
	}
	state := ""
	if nat {
		state = "ct state related,established "
		match := fmt.Sprintf("%s saddr %s ", family, net)
		for _, m := range slices.Backward(multicast) {
			rules["guest_nat"] = append([]string{out + match + family + " daddr " + m + " return"}, rules["guest_nat"]...)
		}
		for _, what := range []string{"meta l4proto tcp|masquerade to :1024-65535", "meta l4proto udp|masquerade to :1024-65535", "|masquerade"} {
			proto, action, _ := strings.Cut(what, "|")
			rules["guest_nat"] = append(rules["guest_nat"], fmt.Sprintf("%s %s %s daddr != %s %s%s", proto, match, family, net, out, action))
		}
	}
	rules["guest_output"] = append([]string{fmt.Sprintf("%s saddr %s iif %s %saccept", family, net, bridge, out)}, rules["guest_output"]...)
	rules["guest_input"] = append([]string{fmt.Sprintf("%soif %s %s daddr %s %saccept", in, bridge, family, net, state)}, rules["guest_input"]...)
	return rules
}
