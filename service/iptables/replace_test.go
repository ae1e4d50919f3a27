package iptables

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// TestChangeByHandle: rules that are changed in their places by their handles are
// those that a comparison of all rules makes, in the same places.
func TestChangeByHandle(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	start := func(string) ruleset.Counters {
		return ruleset.Counters{FromGuestPackets: 7, FromGuestBytes: 700, ToGuestPackets: 5, ToGuestBytes: 500, RejectedToGuestPackets: 3}
	}
	quick, slow := newBed(t, "nft", Config{StartValues: start}), newBed(t, "nft", Config{StartValues: start})
	for _, b := range []*bed{quick, slow} {
		b.libvirtsOwn()
		b.wrap("iptables-save", `case $1 in -c) echo run >>/tmp/listings;; esac; exec $real "$@"`)
		b.sync(nat(1), nat(2), nat(3))
		b.Must("iptables", "-I", "LIBVIRT_FWI", "3", "-o", "virbr2", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
	}
	for _, step := range []struct {
		what    string
		listed  bool
		changed func(n *network.Network)
	}{
		{"other ports", false, func(n *network.Network) { n.NATPorts = network.PortRange{First: 2000, Last: 3000} }},
		{"addresses to translate to", false, func(n *network.Network) {
			n.NATAddresses = network.AddrRange{First: netip.MustParseAddr("192.0.2.1"), Last: netip.MustParseAddr("192.0.2.9")}
		}},
		{"a device", false, func(n *network.Network) { n.Devices = []string{"eth7"} }},
		{"no translation of IPv6", false, func(n *network.Network) { n.NATIPv6 = false }},
		{"another subnet and translation", true, func(n *network.Network) { n.Addresses[0] = netip.MustParsePrefix("10.9.9.1/25") }},
		{"no DHCP", false, func(n *network.Network) { n.DHCP = false }},
		{"routed, with DHCP again", true, func(n *network.Network) { n.Mode = network.ModeRoute }},
		{"isolated", false, func(n *network.Network) { n.Mode = network.ModeIsolated }},
		{"translated again", true, func(n *network.Network) { *n = nat(2) }},
		{"another bridge", false, func(n *network.Network) { n.Bridge = "virbr22" }},
	} {
		n := nat(2)
		n.Addresses = append([]netip.Prefix{}, n.Addresses...)
		step.changed(&n)
		slow.handles = handles{}
		quick.Must("rm", "-f", "/tmp/listings")
		quick.apply([]network.Network{n})
		slow.apply([]network.Network{n})
		if _, err := quick.ReadFile("/tmp/listings"); (err == nil) != step.listed {
			t.Errorf("%s: listed: %v", step.what, err == nil)
		}
		quick.same(step.what, slow.saved())
		if diff := cmp.Diff(slow.counts(), quick.counts()); diff != "" {
			t.Errorf("%s: counters (-want +got):\n%s", step.what, diff)
		}
		if strings.Contains(quick.saved(), newChain) {
			t.Errorf("%s: a chain is left", step.what)
		}
		if diff := cmp.Diff([]string(nil), quick.verify()); diff != "" {
			t.Errorf("%s: damaged:\n%s", step.what, diff)
		}
	}
}

func (b *bed) counts() (out map[string]ruleset.Counters) {
	b.t.Helper()
	if err := b.Inside(func() (err error) { out, err = b.Counters(context.Background()); return err }); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bed) verify() (damaged []string) {
	b.t.Helper()
	if err := b.Inside(func() (err error) { damaged, err = b.Verify(context.Background()); return err }); err != nil {
		b.t.Fatal(err)
	}
	return damaged
}

// TestChangeByHandleThatFails: another program's commit comes between, or the rules
// are not there; then all rules are compared, and no chain for new ones is left.
func TestChangeByHandleThatFails(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	for name, c := range map[string]struct{ before, during string }{
		"a commit meanwhile":  {"true", `$real "$@" || exit; exec nft add table ip other`},
		"a rule is gone":      {"iptables -D LIBVIRT_FWI -o virbr2 -j REJECT", `exec $real "$@"`},
		"flushed meanwhile":   {"true", `$real "$@" || exit; exec /usr/sbin/iptables -F LIBVIRT_FWO`},
		"the program fails":   {"true", `[ -e /tmp/fault ] && rm /tmp/fault && $real "$@" && exit 1; exec $real "$@"`},
		"a chain left before": {"iptables -N VIRTFW_NEW; iptables -A VIRTFW_NEW -j DROP; iptables -t nat -N VIRTFW_NEW", `exec $real "$@"`},
	} {
		t.Run(name, func(t *testing.T) {
			b, want := newBed(t, "nft", Config{Log: quiet()}), newBed(t, "nft", Config{Log: quiet()})
			changed := nat(2)
			changed.Devices = []string{"eth7"}
			want.sync(nat(1), changed, nat(3))
			b.sync(nat(1), nat(2), nat(3))
			b.Must("sh", "-c", c.before)
			b.Must("touch", "/tmp/fault")
			b.wrap("iptables-restore", "case $1 in -V) ;; *) "+c.during+";; esac; exec $real \"$@\"")
			b.wrap("iptables-nft-restore", "case $1 in -V) ;; *) "+c.during+";; esac; exec $real \"$@\"")
			b.apply([]network.Network{changed})
			if name == "flushed meanwhile" {
				b.Must("rm", "/usr/local/sbin/iptables-restore", "/usr/local/sbin/iptables-nft-restore")
			}
			b.sync(nat(1), changed, nat(3))
			b.same(name, want.saved())
		})
	}
}
