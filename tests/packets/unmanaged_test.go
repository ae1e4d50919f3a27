package packets

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestStrangersConnectionsStay: a connection from another bridge whose source
// lies in a network's subnet is not deleted when the network is added or the
// service starts; a guest's own that began without translation is.
func TestStrangersConnectionsStay(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Must("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	r.Must("nft", "add table inet foreign { chain c { type filter hook forward priority 0; ct state new accept; }; }")
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.Bridge("strange0", "10.99.0.1/24", "2001:db8:99::1/64")
	internet := r.Internet()
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	stranger := r.Guest("strange0", "stranger", "10.99.0.10/24", "2001:db8:99::10/64")
	stranger.Must("ip", "addr", "add", "192.168.122.77/32", "dev", "lo")
	stranger.Must("ip", "-6", "addr", "add", "2001:db8:122::77/128", "dev", "lo", "nodad")
	talk := func(from *host.Peer, to, source string) netip.Addr {
		t.Helper()
		p := host.Probe{Proto: host.UDP, To: netip.AddrPortFrom(netip.MustParseAddr(to), 7100), From: netip.MustParseAddrPort(source)}
		got := host.Try(from, internet, p)
		return got.Seen.Addr()
	}
	entries := func(source string) string {
		family := "ipv4"
		if strings.Contains(source, ":") {
			family = "ipv6"
		}
		out, _ := r.Run("conntrack", "-L", "-f", family, "-s", source, "-o", "id")
		var ids []string
		for field := range strings.FieldsSeq(out) {
			if strings.HasPrefix(field, "id=") {
				ids = append(ids, field)
			}
		}
		return strings.Join(ids, " ")
	}
	talk(guest, rig.Internet4, "192.168.122.10:4100")
	talk(guest, rig.Internet6, "[2001:db8:122::10]:4100")
	if a, b := talk(stranger, rig.Internet4, "192.168.122.77:4100"), talk(stranger, rig.Internet6, "[2001:db8:122::77]:4100"); !a.IsValid() || !b.IsValid() {
		t.Fatalf("the stranger does not reach the internet: %v, %v", a, b)
	}
	before := map[string]string{}
	for _, a := range []string{"192.168.122.77", "2001:db8:122::77"} {
		if before[a] = entries(a); before[a] == "" {
			t.Fatalf("no connection of %s is known", a)
		}
	}
	check := func(when string) {
		t.Helper()
		for a, was := range before {
			if is := entries(a); is != was {
				t.Errorf("%s: the connection of the stranger's %s was %q and is %q", when, a, was, is)
			}
		}
	}
	r.OK(r.AddXML(rig.NatXML("<nat ipv6='yes'/>"), "Persistent", true))
	r.Until("the guest's flow of IPv4 is translated", func() bool {
		return talk(guest, rig.Internet4, "192.168.122.10:4100") == netip.MustParseAddr("203.0.113.2")
	})
	r.Until("the guest's flow of IPv6 is translated", func() bool {
		return talk(guest, rig.Internet6, "[2001:db8:122::10]:4100") == netip.MustParseAddr("2001:db8:ffff::2")
	})
	check("added")
	for _, killed := range []bool{false, true} {
		r.Must("conntrack", "-I", "-p", "udp", "--timeout", "600", "--sport", "9", "--dport", "53", "-s", "192.168.122.10", "-d", "198.51.100.200")
		r.Restart(killed)
		r.Until("the guest's connection is forgotten", func() bool {
			out, _ := r.Run("conntrack", "-L", "-s", "192.168.122.10", "-d", "198.51.100.200")
			return !strings.Contains(out, "sport=9")
		})
		check("started again")
	}
}
