package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/dbus"
)

const peerRounds = 20

// measurePeers does what AddNetwork does to the kernel in other ways.
func measurePeers(bin string, s *section) error {
	s.title = "The same rules in other ways"
	s.how = fmt.Sprintf(`The rules of one network like libvirt's default one beside those of others. "libvirt's way" is what
libvirt 11.3 does: its flat chains, and an nft process for each rule (IPv4 only; neither libvirt's own time
nor its tc commands are in it). "nft -f" is one nft process that puts our own rules of one network into the
table which the stopped service left. %d adds each.`, peerRounds)
	if err := withBed(bin, func(b *bed) error { return b.libvirtWay(s) }); err != nil {
		return err
	}
	return withBed(bin, func(b *bed) error {
		// Nothing else may write an owned table, and nft 1.0.6 not even name one
		// that lasts.
		if err := b.WriteFile("/etc/virtfirewalld/virtfirewalld.conf", []byte("own_table = false\n"), 0o644); err != nil {
			return err
		}
		return b.nftFile(s)
	})
}

// libvirtWay adds a network with an nft process for each rule.
func (b *bed) libvirtWay(s *section) error {
	if err := b.addBridges(0, many); err != nil {
		return err
	}
	if err := b.addBridges(extra, extra+1); err != nil {
		return err
	}
	var script strings.Builder
	for _, rule := range libvirtRules(numbered(extra)) {
		fmt.Fprintf(&script, "nft -ae insert rule ip libvirt_network %s >/dev/null\n", strings.ReplaceAll(rule, "!", `\!`))
	}
	if err := b.WriteFile("/root/insert", []byte(script.String()), 0o644); err != nil {
		return err
	}
	for _, count := range []int{0, many} {
		if _, err := b.RunInput(libvirtTable(count), "nft", "-f", "-"); err != nil {
			return err
		}
		var took times
		for range peerRounds {
			begin := time.Now()
			if _, err := b.Run("sh", "-e", "/root/insert"); err != nil {
				return err
			}
			took = append(took, time.Since(begin))
			// So that each finds the same.
			if _, err := b.RunInput("delete table ip libvirt_network\n"+libvirtTable(count), "nft", "-f", "-"); err != nil {
				return err
			}
		}
		s.add(fmt.Sprintf("libvirt's way beside %d", count), took.String())
	}
	return nil
}

// libvirtRules returns what libvirt 11.3 inserts for its default network, each at
// the head of its chain and so last to first.
func libvirtRules(n network) []string {
	net := n.prefix()
	return []string{
		"guest_cross iif " + n.bridge + " oif " + n.bridge + " counter accept",
		"guest_input oif " + n.bridge + " counter reject",
		"guest_output iif " + n.bridge + " counter reject",
		"guest_output ip saddr " + net + " iif " + n.bridge + " counter accept",
		"guest_input oif " + n.bridge + " ip daddr " + net + " ct state related,established counter accept",
		"guest_nat ip saddr " + net + " ip daddr != " + net + " counter masquerade",
		"guest_nat meta l4proto udp ip saddr " + net + " ip daddr != " + net + " counter masquerade to :1024-65535",
		"guest_nat meta l4proto tcp ip saddr " + net + " ip daddr != " + net + " counter masquerade to :1024-65535",
		"guest_nat ip saddr " + net + " ip daddr 255.255.255.255/32 counter return",
		"guest_nat ip saddr " + net + " ip daddr 224.0.0.0/24 counter return",
	}
}

// libvirtTable returns libvirt's table with a number of networks.
func libvirtTable(count int) string {
	chains := map[string][]string{}
	for i := range count {
		for _, rule := range libvirtRules(numbered(i)) {
			chain, text, _ := strings.Cut(rule, " ")
			chains[chain] = append(chains[chain], text)
		}
	}
	var b strings.Builder
	b.WriteString("table ip libvirt_network {\n")
	for _, chain := range []string{"guest_cross", "guest_input", "guest_output"} {
		slices.Reverse(chains[chain])
		fmt.Fprintf(&b, "chain %s {\n%s\n}\n", chain, strings.Join(chains[chain], "\n"))
	}
	b.WriteString("chain forward { type filter hook forward priority 0; policy accept; counter jump guest_cross; counter jump guest_input; counter jump guest_output; }\n")
	slices.Reverse(chains["guest_nat"])
	fmt.Fprintf(&b, "chain guest_nat { type nat hook postrouting priority 100; policy accept;\n%s\n}\n}\n", strings.Join(chains["guest_nat"], "\n"))
	return b.String()
}

// nftFile adds networks with one nft process each.
func (b *bed) nftFile(s *section) error {
	if err := b.addBridges(0, many); err != nil {
		return err
	}
	if err := b.addBridges(extra, extra+peerRounds); err != nil {
		return err
	}
	if _, err := b.start(); err != nil {
		return err
	}
	if err := b.addRange(0, many); err != nil {
		return err
	}
	var texts []string
	for i := range peerRounds {
		text, err := b.rulesOf(numbered(extra + i))
		if err != nil {
			return err
		}
		texts = append(texts, text)
	}
	if err := b.stop(); err != nil {
		return err
	}
	var took times
	for _, text := range texts {
		text = elementsApart(text)
		begin := time.Now()
		if _, err := b.RunInput(text, "nft", "-f", "-"); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	s.add(fmt.Sprintf("nft -f beside %d", many), took.String())
	return nil
}

// rulesOf returns what the service puts into the kernel for a network.
func (b *bed) rulesOf(n network) (text string, err error) {
	if err := b.add(n, nil); err != nil {
		return "", err
	}
	call := b.bus.Object(managerName, dbus.NetworkPath(n.name)).Call(managerName+".Network.GetRuleset", 0)
	if err := call.Store(&text); err != nil {
		return "", err
	}
	return text, b.remove(n, nil)
}

// elementsApart turns sets, which are there already and need not be declared
// again, into commands for their elements.
func elementsApart(text string) string {
	var table, elements strings.Builder
	set := ""
	for line := range strings.Lines(text) {
		word := strings.Fields(line)
		switch {
		case len(word) == 3 && (word[0] == "set" || word[0] == "map"):
			set = word[1]
		case set == "":
			table.WriteString(line)
		case len(word) == 1 && word[0] == "}":
			set = ""
		case len(word) > 0 && word[0] == "elements":
			_, list, _ := strings.Cut(line, "=")
			fmt.Fprintf(&elements, "add element inet libvirt_network %s %s", set, list)
		}
	}
	return table.String() + elements.String()
}
