package firewalld

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// spoken is what one probe must come to.
type spoken struct {
	what     string
	from, to host.Node
	proto    host.Proto
	at       string // address and port
	want     string // "passes", "refused", or the source that the server must see
}

// speak sends each probe and compares.
func speak(t *testing.T, probes []spoken) {
	t.Helper()
	for _, p := range probes {
		r := rig.TryPatiently(p.from, p.to, host.Probe{Proto: p.proto, To: netip.MustParseAddrPort(p.at)})
		got := rig.Verdict(r)
		if r.Reached && p.want != "passes" {
			got = r.Seen.Addr().String()
		}
		if got != p.want {
			t.Errorf("%s (%s to %s): %v, want %s", p.what, p.proto, p.at, r, p.want)
		}
	}
}

// guestToHost returns the zone's services and one port that is none of them, in
// both families.
func guestToHost(r *rig.Rig, guest host.Node, four, six string) []spoken {
	return []spoken{
		{"DNS", guest, r.Host, host.UDP, four + ":53", "passes"},
		{"DNS", guest, r.Host, host.UDP, "[" + six + "]:53", "passes"},
		{"DNS over TCP", guest, r.Host, host.TCP, four + ":53", "passes"},
		{"SSH", guest, r.Host, host.TCP, four + ":22", "passes"},
		{"SSH", guest, r.Host, host.TCP, "[" + six + "]:22", "passes"},
		{"TFTP", guest, r.Host, host.UDP, four + ":69", "passes"},
		{"ping", guest, r.Host, host.ICMP, four + ":0", "passes"},
		{"ping", guest, r.Host, host.ICMP, "[" + six + "]:0", "passes"},
		{"a port of no service", guest, r.Host, host.TCP, four + ":8080", "refused"},
		{"a port of no service", guest, r.Host, host.TCP, "[" + six + "]:8080", "refused"},
		{"a port of no service", guest, r.Host, host.UDP, four + ":8080", "refused"},
		{"a port of no service", guest, r.Host, host.UDP, "[" + six + "]:8080", "refused"},
	}
}

func TestNATNetworkBehindFirewalld(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	rig.AnswerEverything(r.Host)
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat6", rig.NatNet, rig.NatNet6)))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	speak(t, guestToHost(r, guest, "192.168.122.1", "2001:db8:122::1"))
	speak(t, []spoken{
		{"NAT", guest, internet, host.TCP, "203.0.113.1:0", "203.0.113.2"},
		{"NAT", guest, internet, host.UDP, "203.0.113.1:0", "203.0.113.2"},
		{"NAT", guest, internet, host.ICMP, "203.0.113.1:0", "203.0.113.2"},
		{"NAT", guest, internet, host.TCP, "[2001:db8:ffff::1]:0", "2001:db8:ffff::2"},
		{"from outside", internet, guest, host.TCP, "192.168.122.10:22", "refused"},
		{"from outside", internet, guest, host.TCP, "[2001:db8:122::10]:22", "refused"},
		{"the host's own", r.Host, guest, host.TCP, "192.168.122.10:22", "passes"},
	})
	// The same holds right after firewalld forgot the binding and got it back.
	r.Must("firewall-cmd", "--reload")
	r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	speak(t, guestToHost(r, guest, "192.168.122.1", "2001:db8:122::1")[:4])
}

// TestGuestGetsALease asks the real dnsmasq for an address and a name.
func TestGuestGetsALease(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"nat", "route", "isolated"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := rig.WithFirewalld(t, rig.AllZones...)
			r.Bridge("virbr0", rig.NatNet)
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", mode, rig.NatNet)))
			r.Dnsmasq("virbr0")
			guest := r.Guest("virbr0", "guest")
			guest.Must("udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2")
			if out := guest.Must("ip", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "inet 192.168.122.") {
				t.Errorf("no address after DHCP:\n%s", out)
			}
			if out := guest.Must("getent", "ahostsv4", "gateway"); !strings.Contains(out, "192.168.122.1") {
				t.Errorf("the name resolves to:\n%s", out)
			}
		})
	}
}

func TestRoutedNetworkBehindFirewalld(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	rig.AnswerEverything(r.Host)
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "route", rig.NatNet, rig.NatNet6)))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	r.Firewalld.WantZone("default", "virbr0", "libvirt-routed")
	speak(t, guestToHost(r, guest, "192.168.122.1", "2001:db8:122::1"))
	speak(t, []spoken{
		{"out", guest, internet, host.TCP, "203.0.113.1:0", "192.168.122.10"},
		{"out", guest, internet, host.UDP, "[2001:db8:ffff::1]:0", "2001:db8:122::10"},
		{"in", internet, guest, host.TCP, "192.168.122.10:0", "203.0.113.1"},
		{"in", internet, guest, host.UDP, "192.168.122.10:0", "203.0.113.1"},
		{"in", internet, guest, host.ICMP, "192.168.122.10:0", "203.0.113.1"},
		{"in", internet, guest, host.TCP, "[2001:db8:122::10]:0", "2001:db8:ffff::1"},
		{"the host's own", r.Host, guest, host.TCP, "192.168.122.10:22", "passes"},
	})
	// In zone libvirt, firewalld itself would keep the outside out: so the
	// policies are what lets it in.
	r.OK(r.Manager("BindInterface", "virbr0", "libvirt"))
	speak(t, []spoken{{"in without policies", internet, guest, host.TCP, "192.168.122.10:0", "refused"}})
}

// TestIsolatedNetworkBehindFirewalld: zone libvirt accepts all that is
// forwarded, so that only the service's rules isolate.
func TestIsolatedNetworkBehindFirewalld(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	rig.AnswerEverything(r.Host)
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
	r.Bridge("virbr1", "10.1.0.1/24", "2001:db8:1::1/64")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "isolated", rig.NatNet, rig.NatNet6)))
	r.OK(r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.1.0.1/24", "2001:db8:1::1/64")))
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	neighbour := r.Guest("virbr0", "neighbour", "192.168.122.11/24")
	other := r.Guest("virbr1", "other", "10.1.0.10/24", "2001:db8:1::10/64")
	speak(t, guestToHost(r, guest, "192.168.122.1", "2001:db8:122::1"))
	speak(t, []spoken{
		{"out", guest, internet, host.TCP, "203.0.113.1:0", "refused"},
		{"out", guest, internet, host.UDP, "[2001:db8:ffff::1]:0", "refused"},
		{"in", internet, guest, host.TCP, "192.168.122.10:22", "refused"},
		{"to another network", guest, other, host.TCP, "10.1.0.10:22", "refused"},
		{"to another network", guest, other, host.TCP, "[2001:db8:1::10]:22", "refused"},
		{"from another network", other, guest, host.TCP, "192.168.122.10:22", "refused"},
		{"within", guest, neighbour, host.TCP, "192.168.122.11:22", "passes"},
	})
}

// TestMissingZoneKeepsGuestsSafe: without a network's zone, firewalld's default
// zone decides about packets to the host, and forwarding is guarded all the same;
// with its zone, guests reach the host's services.
func TestMissingZoneKeepsGuestsSafe(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t)
	r.Announce("state_code=zone-")
	rig.AnswerEverything(r.Host)
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	services := []spoken{
		{"DNS", guest, r.Host, host.UDP, "192.168.122.1:53", "refused"},
		{"from outside", internet, guest, host.TCP, "192.168.122.10:22", "refused"},
		{"out", guest, internet, host.TCP, "203.0.113.1:0", "refused"},
	}
	speak(t, services)
	r.OK(r.Manager("InstallZones", rig.Opts()))
	services[0].want, services[2].want = "passes", "203.0.113.2"
	speak(t, services)
}

// TestEstablishedConnectionOutlivesFirewalld: what a guest began goes on while
// firewalld reloads, dies and comes back.
func TestEstablishedConnectionOutlivesFirewalld(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	conn := rig.Connect(t, guest, internet, "203.0.113.1:7000")
	r.Must("firewall-cmd", "--reload")
	r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	conn.Works(t, "after firewalld's reload")
	r.Firewalld.Restart(syscall.SIGKILL)
	r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	conn.Works(t, "after kill -9 of firewalld")
	rig.Natted(t, guest, internet, "after kill -9 of firewalld")
}
