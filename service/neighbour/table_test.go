package neighbour

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// libvirtTables returns what libvirt's nftables backend makes for the village, with
// the chain of libvirt 10.8 that writes checksums.
func libvirtTables() string {
	var b strings.Builder
	for _, family := range []string{"ip", "ip6"} {
		chains := make(map[string]string)
		for _, v := range village {
			for chain, rules := range libvirtChains(family, v.net) {
				chains[chain] = rules + chains[chain]
			}
		}
		fmt.Fprintf(&b, "table %s libvirt_network {\n", family)
		for _, chain := range []string{"guest_output", "guest_input", "guest_cross"} {
			fmt.Fprintf(&b, "chain %s {\n%s}\n", chain, chains[chain])
		}
		b.WriteString("chain forward { type filter hook forward priority 0; policy accept\ncounter jump guest_cross\ncounter jump guest_input\ncounter jump guest_output\n}\n")
		fmt.Fprintf(&b, "chain guest_nat { type nat hook postrouting priority 100; policy accept\n%s}\n", chains["guest_nat"])
		fmt.Fprintf(&b, "chain postroute_mangle { type filter hook postrouting priority 0; policy accept\n%s}\n}\n", chains["postroute_mangle"])
	}
	return b.String()
}

func libvirtChains(family string, n network.Network) map[string]string {
	rules := map[string]string{
		"guest_cross":  fmt.Sprintf("iif %s oif %s counter accept\n", n.Bridge, n.Bridge),
		"guest_input":  fmt.Sprintf("oif %s counter reject\n", n.Bridge),
		"guest_output": fmt.Sprintf("iif %s counter reject\n", n.Bridge),
	}
	if family == "ip" {
		rules["postroute_mangle"] = fmt.Sprintf("oif %s udp dport 68 counter udp checksum set 0\n", n.Bridge)
	}
	in, out := "", ""
	if n.Mode == network.ModeRoute {
		in, out = "iifname lo ", "oifname lo "
	}
	for _, p := range n.Subnets() {
		if p.Addr().Is6() != (family == "ip6") || n.Mode == network.ModeIsolated {
			continue
		}
		nat := n.Mode == network.ModeNAT && (family == "ip" || n.Name == "n1")
		state := ""
		if nat {
			state = "ct state related,established "
			rules["guest_nat"] += translation(family, p.String(), n.Name == "n1" && family == "ip")
		}
		rules["guest_output"] = fmt.Sprintf("%s saddr %s iif %s %scounter accept\n", family, p, n.Bridge, out) + rules["guest_output"]
		rules["guest_input"] = fmt.Sprintf("%soif %s %s daddr %s %scounter accept\n", in, n.Bridge, family, p, state) + rules["guest_input"]
	}
	return rules
}

// translation returns the rules of one subnet, if addresses to a range of addresses.
func translation(family, subnet string, addresses bool) string {
	var b strings.Builder
	exempt := []string{"224.0.0.0/24", "255.255.255.255/32"}
	if family == "ip6" {
		exempt = []string{"ff02::/16"}
	}
	for _, to := range exempt {
		fmt.Fprintf(&b, "%s saddr %s %s daddr %s counter return\n", family, subnet, family, to)
	}
	action := "masquerade"
	if addresses {
		action = "snat to 203.0.113.1-203.0.113.4"
	}
	for _, proto := range []string{"tcp", "udp"} {
		ports := " to :1024-65535"
		if addresses {
			ports = ":2000-3000"
		}
		fmt.Fprintf(&b, "meta l4proto %s %s saddr %s %s daddr != %s counter %s%s\n", proto, family, subnet, family, subnet, action, ports)
	}
	fmt.Fprintf(&b, "%s saddr %s %s daddr != %s counter %s\n", family, subnet, family, subnet, action)
	return b.String()
}

// foreignTables are tables and rules that are not libvirt's; those in libvirt's own
// chains have the word hook in their comment, or name a guest's address.
const foreignTables = `
add table inet libvirt_network
add chain inet libvirt_network guest_input
add rule inet libvirt_network guest_input oif virbr1 counter reject
add table ip other
add chain ip other guest_cross
add rule ip other guest_cross iif virbr1 oif virbr1 counter accept
add table bridge libvirt_network
add chain bridge libvirt_network guest_output
add rule bridge libvirt_network guest_output iif virbr1 counter drop
`

// hookRules are foreign rules in libvirt's chains, all for virbr1.
var hookRules = []string{
	`guest_input oif virbr1 ip daddr 10.2.0.0/24 counter accept comment "hook"`,
	`guest_input oif virbr1 ip daddr 10.2.0.10 counter accept comment "hook of a guest"`,
	`guest_input oif virbr1 ip daddr 10.2.0.0/24 tcp dport 80 accept comment "hook"`,
	`guest_input oif virbr1 ct state new counter accept comment "hook"`,
	`guest_output iif virbr1 limit rate 5/second accept comment "hook"`,
	`guest_output iif virbr1 ip saddr 10.2.0.0/24 oif { lo, virbr0 } accept comment "hook"`,
	`guest_cross iif virbr1 counter drop comment "hook"`,
	`guest_nat ip saddr 10.2.0.0/24 ip daddr 192.0.2.0/24 counter return comment "hook"`,
	`guest_nat ip saddr 10.2.0.0/24 oifname "virbr*" masquerade comment "hook"`,
	`forward iif virbr1 accept comment "hook"`,
	`postroute_mangle oif virbr1 udp dport 68 udp checksum set 1 counter drop comment "hook"`,
}

func tablesHost(t *testing.T) *host.Host {
	t.Helper()
	h := host.New(t)
	for _, v := range village {
		h.Bridge(v.net.Bridge)
	}
	feed(t, h, libvirtTables()+foreignTables)
	return h
}

func feed(t *testing.T, h *host.Host, text string) {
	t.Helper()
	if out, err := h.RunInput(text, "nft", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
}

// One network's rules go; the rest stays to the byte, handles and all.
func TestRemoveFromTables(t *testing.T) {
	t.Parallel()
	h := tablesHost(t)
	for _, rule := range hookRules {
		feed(t, h, "add rule ip libvirt_network "+rule)
	}
	one := village[1].net
	if found := present(t, h, allNetworks()...); len(found) != len(village) {
		t.Errorf("found at first: %v", found)
	}
	before := listing(h)
	report := remove(t, h, xtables.Variants{}, one)
	own, others := cut(before, "table ip other")
	want := without(own, `"virbr1"`, " 10.2.0.0/24 ", " 10.12.0.0/16 ", " 2001:db8:2::/64 ") + others
	if diff := cmp.Diff(want, listing(h)); diff != "" {
		t.Error(diff)
	}
	if report.Rules["table ip libvirt_network"] != 4+2*2+2*5 || report.Rules["table ip6 libvirt_network"] != 3+2+4 ||
		len(report.Chains) != 0 || len(report.Kept) == 0 {
		t.Errorf("report: %+v", report)
	}
	if found := present(t, h, allNetworks()...); found[one.Name] > 0 || len(found) != len(village)-1 {
		t.Errorf("found afterwards: %v", found)
	}
	// The other networks' rules go as well; what hooks made keeps its table.
	report = remove(t, h, xtables.Variants{}, allNetworks()...)
	if diff := cmp.Diff([]string{"table ip6 libvirt_network: the table"}, report.Chains); diff != "" {
		t.Error(diff)
	}
	if text := listing(h); strings.Count(text, `comment "hook`) != len(hookRules) {
		t.Errorf("hooks' rules are missing:\n%s", text)
	}
}

// cut splits a ruleset where others' tables begin: they were made last.
func cut(text, at string) (before, after string) {
	before, after, _ = strings.Cut(text, at)
	inet, rest, _ := strings.Cut(before, "table inet libvirt_network")
	return inet, "table inet libvirt_network" + rest + at + after
}

// With all networks, the tables go, and only those.
func TestRemoveTables(t *testing.T) {
	t.Parallel()
	h := tablesHost(t)
	_, others := cut(listing(h), "table ip other")
	report := remove(t, h, xtables.Variants{}, allNetworks()...)
	if diff := cmp.Diff(others, listing(h)); diff != "" {
		t.Error(diff)
	}
	if len(report.Chains) != 2 || len(report.Kept) != 0 {
		t.Errorf("report: %+v", report)
	}
}

// Whatever libvirt does not make keeps the table.
func TestTablesWithMoreStay(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	for _, v := range village {
		h.Bridge(v.net.Bridge)
	}
	for _, more := range []string{
		"add chain ip libvirt_network mine",
		"add set ip libvirt_network mine { type ipv4_addr; }",
		"add counter ip libvirt_network mine",
		"add rule ip libvirt_network forward counter",
		"add rule ip libvirt_network forward counter jump guest_cross comment \"mine\"",
		"add rule ip libvirt_network guest_cross iif 99 oif 99 counter accept",
		"add flowtable ip libvirt_network mine { hook ingress priority 0; devices = { lo }; }",
	} {
		feed(t, h, libvirtTables())
		if out, err := h.RunInput(more, "nft", "-f", "-"); err != nil {
			if strings.HasPrefix(more, "add flowtable") {
				continue // kernels without flow tables cannot have one in the way
			}
			t.Fatal(out, err)
		}
		report := remove(t, h, xtables.Variants{}, allNetworks()...)
		text := listing(h)
		if !strings.Contains(text, "table ip libvirt_network") || strings.Contains(text, "table ip6") || strings.Contains(text, "virbr") {
			t.Errorf("%s: left\n%s", more, text)
		}
		if len(report.Chains) != 1 {
			t.Errorf("%s: %+v", more, report)
		}
		feed(t, h, "delete table ip libvirt_network")
	}
}

// A table with an owner belongs to that program.
func TestOwnedTableStays(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	h.Bridge("virbr3")
	err := h.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = conn.CloseLasting() })
		table := conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4, Flags: nftables.TableFlagOwner})
		conn.AddChain(&nftables.Chain{Table: table, Name: "guest_cross"})
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	before := listing(h)
	if report := remove(t, h, xtables.Variants{}, allNetworks()...); !report.Empty() {
		t.Errorf("report: %+v", report)
	}
	if diff := cmp.Diff(before, listing(h)); diff != "" || !strings.Contains(before, "guest_cross") {
		t.Error(before, diff)
	}
}

// Other programs' concurrent changes neither stop it nor get lost.
func TestRemoveDuringChanges(t *testing.T) {
	t.Parallel()
	h := tablesHost(t)
	feed(t, h, "add rule ip libvirt_network guest_cross iif virbr1 counter drop comment \"hook\"")
	ctx, cancel := context.WithCancel(context.Background())
	var others sync.WaitGroup
	made := 0
	others.Go(func() {
		err := h.Do(func() (err error) {
			made, err = changeUntil(ctx)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	for _, v := range village {
		removeAtLast(t, h, v.net)
	}
	cancel()
	others.Wait()
	text := listing(h)
	// An empty table may stay while others never rest.
	if remove(t, h, xtables.Variants{}, allNetworks()...); strings.Contains(listing(h), "table ip6 libvirt_network") || strings.Count(text, `iif "virbr1"`) != 1+2 {
		t.Errorf("left:\n%s", text)
	}
	if n := strings.Count(text, "accept # handle"); made == 0 || n != made+1 {
		t.Errorf("%d of %d changes are there", n-1, made)
	}
}

// removeAtLast retries as the service does: on a slow machine all attempts of one
// call may find that something has changed.
func removeAtLast(t *testing.T, h *host.Host, n network.Network) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := h.Do(func() error {
			_, err := leftovers(h).Remove(context.Background(), []network.Network{n}, xtables.Variants{})
			return err
		})
		if err == nil {
			return
		}
		if !errors.Is(err, nfnl.ErrChanged) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// changeUntil adds one rule a millisecond.
func changeUntil(ctx context.Context) (made int, err error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	table := conn.AddTable(&nftables.Table{Name: "busy", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{Table: table, Name: "c"})
	for ; ctx.Err() == nil; made++ {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		if err := conn.Flush(); err != nil {
			return made, err
		}
		time.Sleep(time.Millisecond)
	}
	return made, nil
}
