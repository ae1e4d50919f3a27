package packets

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// diagnosed returns the Ids that Diagnose has for a network.
func diagnosed(r *rig.Rig, network string) string {
	r.T.Helper()
	var found []map[string]godbus.Variant
	r.OK(r.Manager("Diagnose"), &found)
	var ids []string
	for _, f := range found {
		if f["Network"].Value() == network {
			ids = append(ids, f["Id"].Value().(string))
		}
	}
	return strings.Join(rig.Sorted(ids), " ")
}

// TestSubnetsBesideTheHosts: only a subnet that an interface also has is refused;
// one inside or around it is in force, and Diagnose reports it.
func TestSubnetsBesideTheHosts(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", "203.0.113.65/28", "2001:db8:ffff:0:1::1/80")
	internet := r.Internet() // 203.0.113.0/24 and 2001:db8:ffff::/64
	r.Lan()                  // 198.51.100.0/24
	r.WantError(r.AddXML(rig.NetXML("same", "virbr1", "route", "203.0.113.1/24")), "SubnetOverlap")
	r.WantError(r.AddXML(rig.NetXML("same", "virbr1", "route", "2001:db8:ffff::1/64")), "SubnetOverlap")

	r.OK(r.AddXML(rig.NetXML("inside", "virbr0", "route", "203.0.113.65/28", "2001:db8:ffff:0:1::1/80")))
	r.OK(r.AddXML(rig.NetXML("around", "virbr2", "nat", "198.51.0.1/16")))
	for network, want := range map[string]string{
		"inside": "subnet-inside-uplink subnet-inside-uplink", "around": "bridge-missing subnet-around-uplink",
	} {
		if got := diagnosed(r, network); got != want {
			t.Errorf("%s: %q, want %q", network, got, want)
		}
	}
	if state, reason := r.State("inside"); state != "active" {
		t.Errorf("it is %s: %s", state, reason)
	}
	guest := r.Guest("virbr0", "guest", "203.0.113.70/28", "2001:db8:ffff:0:1::70/80")
	internet.Must("ip", "route", "replace", "203.0.113.64/28", "via", "203.0.113.2")
	internet.Must("ip", "-6", "route", "replace", "2001:db8:ffff:0:1::/80", "via", "2001:db8:ffff::2")
	for _, c := range []struct{ to, from string }{{rig.Internet4, "203.0.113.70"}, {rig.Internet6, "2001:db8:ffff:0:1::70"}} {
		out := host.Try(guest, internet, host.Probe{Proto: host.TCP, To: netip.AddrPortFrom(netip.MustParseAddr(c.to), 0)})
		in := host.Try(internet, guest, host.Probe{Proto: host.TCP, To: netip.AddrPortFrom(netip.MustParseAddr(c.from), 0)})
		if !out.Reached || out.Seen.Addr() != netip.MustParseAddr(c.from) || !in.Reached {
			t.Errorf("guest %s: out %v, in %v", c.from, out, in)
		}
	}

	// An address that comes later costs the network nothing.
	r.Must("ip", "addr", "add", "203.0.113.78/28", "dev", "wan0")
	r.Reapply()
	if got := diagnosed(r, "inside"); !strings.Contains(got, "subnet-on-host") {
		t.Errorf("beside the same subnet: %q", got)
	}
	if state, reason := r.State("inside"); state != "active" {
		t.Errorf("beside the same subnet it is %s: %s", state, reason)
	}
}

// TestGuestsPrefixBlocksNobody: a guest announces a prefix on its bridge, the
// host takes an address of it, and another network may have that subnet all the
// same.
func TestGuestsPrefixBlocksNobody(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet, "2001:db8:122::1/64")))
	// What an advertisement makes of a bridge where the host listens to it.
	r.Must("ip", "-6", "addr", "add", "2001:db8:66::66/64", "dev", "virbr0", "nodad", "valid_lft", "1800", "preferred_lft", "1800")
	r.Bridge("virbr6", "2001:db8:66::1/64")
	r.OK(r.AddXML(rig.NetXML("victim", "virbr6", "nat", "2001:db8:66::1/64")))
	if got := diagnosed(r, "victim"); strings.Contains(got, "subnet") {
		t.Errorf("a guest's prefix is found to be the host's: %q", got)
	}
}

// TestLinkLocalSubnets: each bridge has fe80::/64 to itself, while IPv4's
// link-local subnet is forwarded and belongs to one network.
func TestLinkLocalSubnets(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			r.Announce(rig.Uncovered)
			r.Write(rig.ConfigFile, "firewall_backend = \""+backend+"\"\n")
			r.StartDaemon()
			for i, bridge := range []string{"virbr0", "virbr1"} {
				subnet := fmt.Sprintf("192.168.%d.1/24", i)
				r.Bridge(bridge, subnet, "fe80::1/64")
				r.OK(r.AddXML(rig.NetXML(bridge, bridge, "nat6", subnet, "fe80::1/64")))
				r.AwaitState(bridge, "active")
			}
			r.Bridge("virbr7", "169.254.1.1/16")
			r.OK(r.AddXML(rig.NetXML("zeroconf", "virbr7", "isolated", "169.254.1.1/16")))
			r.WantError(r.AddXML(rig.NetXML("other", "virbr8", "isolated", "169.254.8.1/24")), "SubnetOverlap")
			zeroconf, guest, internet := r.Guest("virbr7", "zeroconf", "169.254.9.9/16"), r.Guest("virbr0", "guest", "192.168.0.10/24"), r.Internet()
			rig.Natted(t, guest, internet, "beside another network's link-local subnet")
			host4 := host.Try(zeroconf, r.Host, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("169.254.1.1:0")})
			out := host.Try(zeroconf, internet, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort(rig.Internet4 + ":0")})
			if !host4.Reached || out.Reached || out.Seen.IsValid() {
				t.Errorf("an isolated guest with a link-local address: to the host %v, to the internet %v", host4, out)
			}
			r.Restart(false)
			if n := r.Reapply(); n != 0 {
				t.Errorf("%d repairs after a restart", n)
			}
			r.OK(r.Manager("Reload"))
		})
	}
}
