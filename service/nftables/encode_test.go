package nftables

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func rule(action ruleset.Action, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Action: action}
}

// everyRule has each match and action in each form that is encoded otherwise.
func everyRule() []ruleset.Rule {
	accept := ruleset.Accept{}
	v4, v6 := ruleset.Family{}, ruleset.Family{IPv6: true}
	tcp, udp := ruleset.Protocol{}, ruleset.Protocol{UDP: true}
	return []ruleset.Rule{
		rule(accept),
		rule(nil, v4),
		rule(ruleset.Drop{}, v6),
		rule(accept, ruleset.InDevice{Name: "virbr1"}, ruleset.OutDevice{Name: "abcdefghijklmno"}),
		rule(accept, ruleset.Source{Prefix: prefix("192.168.122.0/24")}),
		rule(accept, ruleset.Source{Prefix: prefix("10.0.0.0/8")}, ruleset.Destination{Prefix: prefix("172.16.0.0/12")}),
		rule(accept, ruleset.Source{Prefix: prefix("192.168.120.0/22")}),
		rule(accept, ruleset.Source{Prefix: prefix("192.168.122.1/32")}),
		rule(accept, ruleset.Source{Prefix: prefix("0.0.0.0/0")}),
		rule(accept, ruleset.Destination{Prefix: prefix("::/0")}),
		rule(accept, ruleset.Destination{Prefix: prefix("192.168.122.0/25"), Not: true}),
		rule(accept, ruleset.Destination{Prefix: prefix("192.168.122.0/24"), Not: true}),
		rule(accept, ruleset.Source{Prefix: prefix("fd00:1::/64")}, ruleset.Destination{Prefix: prefix("fd00:1::/64"), Not: true}),
		rule(accept, ruleset.Source{Prefix: prefix("fd00:1::/60")}, ruleset.Destination{Prefix: prefix("2001:db8::7/128")}),
		rule(accept, ruleset.Destination{Prefix: prefix("ff02::/16")}),
		rule(accept, v4, ruleset.Replies{}),
		rule(accept, ruleset.Destination{Prefix: prefix("10.1.2.0/24")}, ruleset.Replies{}),
		rule(accept, ruleset.Lookup{Set: "same_bridge_id", Key: ruleset.Key(ruleset.InIndex, ruleset.OutIndex)}),
		rule(accept, ruleset.Lookup{Set: "same_bridge_name", Key: ruleset.Key(ruleset.InName, ruleset.OutName)}),
		rule(accept, ruleset.Lookup{Set: "may_leave4_id", Key: ruleset.Key(ruleset.InIndex, ruleset.Source4)}, ruleset.Lookup{Set: "refused_from_id", Key: ruleset.Key(ruleset.InIndex)}),
		rule(accept, ruleset.Lookup{Set: "replies6_id", Key: ruleset.Key(ruleset.OutIndex, ruleset.Destination6)}),
		rule(accept, ruleset.Lookup{Set: "untranslated4_id", Key: ruleset.Key(ruleset.InIndex, ruleset.Source4, ruleset.Destination4)}),
		rule(accept, ruleset.Lookup{Set: "untranslated6_name", Key: ruleset.Key(ruleset.InName, ruleset.Source6, ruleset.Destination6)}),
		rule(accept, ruleset.Lookup{Set: "families_id", Key: ruleset.Key(ruleset.InIndex, ruleset.FamilyField)}),
		rule(accept, ruleset.Lookup{Set: "families_name", Key: ruleset.Key(ruleset.OutName, ruleset.FamilyField)}),
		rule(ruleset.Jump{Chain: ruleset.ChainRefuse}, ruleset.Untracked{}),
		rule(ruleset.Return{}, v6),
		rule(accept, ruleset.Source{Prefix: prefix("192.168.122.0/24")}, ruleset.Tracked{}),
		rule(ruleset.Goto{Chain: ruleset.ChainRefuse}, tcp),
		rule(ruleset.ResetTCP{}, tcp),
		rule(ruleset.Unreachable{}, udp),
		{Matches: []ruleset.Match{v4}, Counter: "net_all_from", Action: accept, Comment: "ünï code; \\ % and 'quotes'"},
		{Counter: "net_all_from"},
	}
}

// everyTranslation is the same for the NAT hook.
func everyTranslation() []ruleset.Rule {
	addr := netip.MustParseAddr
	ports, port := ruleset.Ports{First: 1024, Last: 65535}, ruleset.Ports{First: 5000, Last: 5000}
	v4, v6 := ruleset.Family{}, ruleset.Family{IPv6: true}
	tcp, udp := ruleset.Protocol{}, ruleset.Protocol{UDP: true}
	return []ruleset.Rule{
		rule(ruleset.Masquerade{Ports: ports}, tcp),
		rule(ruleset.Masquerade{Ports: port}, v6, udp),
		rule(ruleset.SNAT{First: addr("1.2.3.4"), Last: addr("1.2.3.9"), Ports: ports}, v4, tcp),
		rule(ruleset.SNAT{First: addr("1.2.3.4"), Last: addr("1.2.3.4"), Ports: port}, ruleset.Source{Prefix: prefix("10.0.0.0/24")}, udp),
		rule(ruleset.SNAT{First: addr("1.2.3.4"), Last: addr("1.2.3.9")}, v4),
		rule(ruleset.SNAT{First: addr("1.2.3.4"), Last: addr("1.2.3.4")}, v4),
		rule(ruleset.SNAT{First: addr("2001:db8::1"), Last: addr("2001:db8::9"), Ports: ports}, v6, tcp),
		rule(ruleset.SNAT{First: addr("2001:db8::1"), Last: addr("2001:db8::1"), Ports: port}, v6, udp),
		rule(ruleset.SNAT{First: addr("2001:db8::1"), Last: addr("2001:db8::9")}, v6),
		rule(ruleset.Masquerade{}, v4),
	}
}

func everyDispatch() []ruleset.Rule {
	return []ruleset.Rule{
		rule(ruleset.Dispatch{Map: "from_id", Field: ruleset.InIndex}),
		rule(ruleset.Dispatch{Map: "from_name", Field: ruleset.InName}),
		rule(ruleset.Dispatch{Map: "to_id", Field: ruleset.OutIndex}),
		rule(ruleset.Dispatch{Map: "to_name", Field: ruleset.OutName}),
	}
}

// TestEveryRuleIsListedAsPrinted compares the text that the service prints of a
// rule with what nft lists of its encoding.
func TestEveryRuleIsListedAsPrinted(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	chains := []ruleset.Chain{
		{Name: "net_all_from", Rules: everyRule()},
		{Name: "net_all_nat", Rules: everyTranslation()},
		{Name: "net_all_lookup", Rules: everyDispatch()},
	}
	mustSync(t, b, ruleset.Part{Network: "all", Counters: []string{"net_all_from"}, Chains: chains})
	listed := list(t, ns)
	for _, c := range chains {
		var want []string
		for _, r := range c.Rules {
			want = append(want, r.String())
		}
		if diff := cmp.Diff(want, chainLines(listed, c.Name)); diff != "" {
			t.Errorf("chain %s, printed (-) and listed (+):\n%s", c.Name, diff)
		}
	}
}

// chainLines returns the rules of a chain as nft listed them.
func chainLines(listed, chain string) []string {
	_, rest, _ := strings.Cut(listed, "\tchain "+chain+" {\n")
	body, _, _ := strings.Cut(rest, "\t}\n")
	var out []string
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "type ") {
			out = append(out, line)
		}
	}
	return out
}

func TestCompiledNetworksAreListedAsPrinted(t *testing.T) {
	base := network.Network{Name: "my net", Bridge: "virbr0", Mode: network.ModeNAT, Addresses: []netip.Prefix{prefix("192.168.122.1/24")}}
	tests := map[string]func(*network.Network){
		"nat":      func(*network.Network) {},
		"isolated": func(n *network.Network) { n.Mode = network.ModeIsolated },
		"route":    func(n *network.Network) { n.Mode, n.Devices = network.ModeRoute, []string{"eth0", "eth1"} },
		"dual stack with routes and ports": func(n *network.Network) {
			n.Addresses = append(n.Addresses, prefix("2001:db8:1::1/64"))
			n.Routes, n.NATIPv6 = []netip.Prefix{prefix("10.0.0.0/9")}, true
			n.NATPorts = network.PortRange{First: 2000, Last: 3000}
		},
		"pool": func(n *network.Network) {
			n.NATAddresses = network.AddrRange{First: netip.MustParseAddr("203.0.113.1"), Last: netip.MustParseAddr("203.0.113.9")}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			run(t, ns, "ip", "link", "add", "virbr0", "index", "77", "type", "bridge")
			n := base
			change(&n)
			p, ok := ruleset.Compile(n, 77)
			if !ok {
				t.Fatal("this network has no rules")
			}
			lo := ruleset.Interface{Index: 1, Name: "lo"}
			known := func(c *Config) {
				c.Host = func() ruleset.Host { return ruleset.Host{Bystanders: []ruleset.Interface{lo}, Uplink: lo.Index} }
			}
			mustSync(t, open(t, ns, known), p)
			bystander := ruleset.Part{Elements: []ruleset.Element{ruleset.BystanderElement(lo)}}
			if diff := cmp.Diff(ruleset.Text(ruleset.Base(lo), p, bystander), plain(list(t, ns))); diff != "" {
				t.Errorf("printed (-) and listed (+):\n%s", diff)
			}
		})
	}
}

// plain returns a listing without the remark that the table is owned.
func plain(listed string) string {
	head, rest, _ := strings.Cut(listed, "\n")
	if after, ok := strings.CutPrefix(rest, "\tflags "); ok {
		_, after, _ = strings.Cut(after, "\n\n")
		rest = after
	}
	return head + "\n" + rest
}

func TestEncodingRefusesWhatTheKernelWouldMisread(t *testing.T) {
	ports := ruleset.Ports{First: 1, Last: 2}
	addr4, addr6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	tests := map[string]struct {
		rule ruleset.Rule
		want string
	}{
		"two families":        {rule(nil, ruleset.Family{}, ruleset.Source{Prefix: prefix("::/0")}), "IPv4 and IPv6"},
		"bits beyond prefix":  {rule(nil, ruleset.Source{Prefix: netip.PrefixFrom(addr4, 24)}), "not a prefix"},
		"no prefix":           {rule(nil, ruleset.Source{}), "not a prefix"},
		"ports, no protocol":  {rule(ruleset.Masquerade{Ports: ports}), "match of the protocol"},
		"reset, no protocol":  {rule(ruleset.ResetTCP{}), "match of the protocol"},
		"pool, no family":     {rule(ruleset.SNAT{First: addr4, Last: addr4}), "match of that family"},
		"pool, other family":  {rule(ruleset.SNAT{First: addr6, Last: addr6}, ruleset.Family{}), "match of that family"},
		"pool, two families":  {rule(ruleset.SNAT{First: addr4, Last: addr6}, ruleset.Family{}), "match of that family"},
		"look-up of nothing":  {rule(nil, ruleset.Lookup{Set: "guests_id"}), "look-up of nothing"},
		"look-up of both":     {rule(nil, ruleset.Lookup{Set: "x", Key: ruleset.Key(ruleset.Source4, ruleset.Source6)}), "IPv4 and IPv6"},
		"dispatch by nothing": {rule(ruleset.Dispatch{Map: "from_id"}), "unknown field"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := encodeRule(tt.rule); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// recorder is a wire that records the messages.
type recorder struct{ messages []netlink.Message }

func (r *recorder) portID() uint32 { return 1 }
func (r *recorder) close() error   { return nil }
func (r *recorder) exchange(messages []netlink.Message) error {
	r.messages = append(r.messages, messages...)
	return nil
}

// TestMasqueradeSaysThatPortsAreGiven checks what is sent, since a listing is the
// same with and without the flag.
func TestMasqueradeSaysThatPortsAreGiven(t *testing.T) {
	tests := map[string]struct {
		rule ruleset.Rule
		want []uint32 // flags of each masquerade expression, 0 for none
	}{
		"range":    {rule(ruleset.Masquerade{Ports: ruleset.Ports{First: 1024, Last: 65535}}, ruleset.Protocol{}), []uint32{unix.NF_NAT_RANGE_PROTO_SPECIFIED}},
		"one port": {rule(ruleset.Masquerade{Ports: ruleset.Ports{First: 7, Last: 7}}, ruleset.Protocol{UDP: true}), []uint32{unix.NF_NAT_RANGE_PROTO_SPECIFIED}},
		"no ports": {rule(ruleset.Masquerade{}), []uint32{0}},
		"accept":   {rule(ruleset.Accept{}), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			tx := &transaction{chains: []ruleset.Chain{{Name: "net_x_nat", Rules: []ruleset.Rule{tt.rule}}}}
			err := transact(r, func(c *nftables.Conn) error {
				return tx.queue(c, nftables.Table{Family: nftables.TableFamilyINet, Name: "x"})
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, masqueradeFlags(r.messages)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func masqueradeFlags(messages []netlink.Message) []uint32 {
	var out []uint32
	for _, m := range messages {
		if m.Header.Type != nfnl.Type(unix.NFT_MSG_NEWRULE) {
			continue
		}
		for _, item := range nfnl.All(nfnl.Body(m.Data).Get(unix.NFTA_RULE_EXPRESSIONS)) {
			expression := nfnl.Attributes(item)
			if expression.Text(unix.NFTA_EXPR_NAME) == "masq" {
				out = append(out, expression.Get(unix.NFTA_EXPR_DATA).Uint32(unix.NFTA_MASQ_FLAGS))
			}
		}
	}
	return out
}

func TestInterfaceNamesAreComparedWhole(t *testing.T) {
	got := interfaceName("virbr1")
	if len(got) != ifNameSize || string(got) != "virbr1"+strings.Repeat("\x00", 10) {
		t.Errorf("virbr1 is %q: a shorter comparison would match virbr10 too", got)
	}
}
