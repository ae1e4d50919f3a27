package packets

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// natHost returns a host with one network from a document, its bridge virbr0, a
// guest with both families and the internet.
func natHost(t *testing.T, xml string) (r *rig.Rig, guest, internet *host.Peer) {
	t.Helper()
	r = rig.Started(t)
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	internet = r.Internet()
	r.OK(r.AddXML(xml))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), internet
}

// TestGuestsGetNoPrivilegedPorts sends from port 900: a listing that says
// "masquerade to :1024-65535" is no proof that the kernel does it.
func TestGuestsGetNoPrivilegedPorts(t *testing.T) {
	t.Parallel()
	_, guest, internet := natHost(t, rig.NatXML("<nat ipv6='yes'/>"))
	for _, proto := range []host.Proto{host.TCP, host.UDP} {
		for _, c := range []struct{ to, from, want string }{
			{rig.Internet4, "192.168.122.10:900", "203.0.113.2"}, {rig.Internet6, "[2001:db8:122::10]:900", "2001:db8:ffff::2"},
		} {
			seen := rig.SeenFrom(t, guest, internet, proto, c.to, c.from)
			if seen.Addr() != netip.MustParseAddr(c.want) || seen.Port() < 1024 {
				t.Errorf("%s from %s: the server saw %v", proto, c.from, seen)
			}
		}
	}
}

func TestPortRange(t *testing.T) {
	t.Parallel()
	_, guest, internet := natHost(t, rig.NatXML("<nat ipv6='yes'><port start='5000' end='5010'/></nat>"))
	for _, proto := range []host.Proto{host.TCP, host.UDP} {
		for _, to := range []string{rig.Internet4, rig.Internet6} {
			if seen := rig.SeenFrom(t, guest, internet, proto, to, ""); seen.Port() < 5000 || seen.Port() > 5010 {
				t.Errorf("%s to %s: the server saw %v", proto, to, seen)
			}
		}
	}
}

// TestSinglePort is D5: libvirt refuses a range of one port at start.
func TestSinglePort(t *testing.T) {
	t.Parallel()
	_, guest, internet := natHost(t, rig.NatXML("<nat><port start='5000' end='5000'/></nat>"))
	if seen := rig.SeenFrom(t, guest, internet, host.TCP, rig.Internet4, ""); seen.Port() != 5000 {
		t.Errorf("the server saw %v", seen)
	}
}

func TestAddressPool(t *testing.T) {
	t.Parallel()
	pool6 := "<metadata><f:network xmlns:f='https://virtfirewall.org/ns/network/1'><f:nat><f:address start='2001:db8:ffff::20' end='2001:db8:ffff::22'/></f:nat></f:network></metadata>"
	xml := strings.Replace(rig.NatXML("<nat ipv6='yes'><address start='203.0.113.20' end='203.0.113.22'/></nat>"), "<forward", pool6+"<forward", 1)
	r, guest, internet := natHost(t, xml)
	r.Must("ip", "addr", "add", "203.0.113.20/24", "dev", "wan0")
	for _, a := range []string{"203.0.113.21/24", "203.0.113.22/24", "2001:db8:ffff::20/64", "2001:db8:ffff::21/64", "2001:db8:ffff::22/64"} {
		r.Must("ip", "addr", "add", a, "dev", "wan0", "nodad")
	}
	for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
		for to, first := range map[string]string{rig.Internet4: "203.0.113.20", rig.Internet6: "2001:db8:ffff::20"} {
			from := "192.168.122.10:900"
			if to == rig.Internet6 {
				from = "[2001:db8:122::10]:900"
			}
			if proto == host.ICMP {
				from = ""
			}
			seen := rig.SeenFrom(t, guest, internet, proto, to, from)
			if offset := int(seen.Addr().AsSlice()[len(seen.Addr().AsSlice())-1]) - lastByte(first); offset < 0 || offset > 2 {
				t.Errorf("%s to %s: the server saw %v", proto, to, seen)
			}
			if proto != host.ICMP && seen.Port() < 1024 {
				t.Errorf("%s to %s: the server saw port %d", proto, to, seen.Port())
			}
		}
	}
}

func lastByte(addr string) int {
	b := netip.MustParseAddr(addr).AsSlice()
	return int(b[len(b)-1])
}

// TestForwardDeviceThatComesLater: a device is matched by name, so that one
// that is absent when the network is added works when it appears.
func TestForwardDeviceThatComesLater(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Announce("forward-device-missing")
	r.Bridge("virbr0", rig.NatNet)
	xml := "<network><name>default</name><forward mode='nat'><interface dev='lan0'/><interface dev='wan0'/></forward>" +
		"<bridge name='virbr0'/><ip address='192.168.122.1' prefix='24'/></network>"
	r.OK(r.AddXML(xml))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	internet := r.Internet()
	rig.Natted(t, guest, internet, "the second device appeared")
	// D10: any of several devices is as good as the first.
	lan := r.Lan()
	if seen := rig.SeenFrom(t, guest, lan, host.TCP, "198.51.100.1", ""); seen.Addr() != netip.MustParseAddr("198.51.100.2") {
		t.Errorf("through the first device: the server saw %v", seen)
	}
	r.Must("ip", "link", "set", "lan0", "down")
	rename(r, "lan0", "elsewhere0")
	r.Must("ip", "link", "set", "elsewhere0", "up")
	r.Must("ip", "addr", "replace", "198.51.100.2/24", "dev", "elsewhere0")
	if got := host.Try(guest, lan, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("198.51.100.1:0")}); got.Seen.IsValid() {
		t.Errorf("through a device that is not among them: %v", got)
	}
}

// TestStrangersWithTheSameAddresses is D8: packets of the host itself and of
// unmanaged bridges keep their source.
func TestStrangersWithTheSameAddresses(t *testing.T) {
	t.Parallel()
	r, guest, internet := natHost(t, rig.NatXML(""))
	rig.Natted(t, guest, internet, "guest")
	// The host, from its own address on the bridge.
	got := host.Try(r.Host, internet, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("203.0.113.1:0"), From: netip.MustParseAddrPort("192.168.122.1:0")})
	if got.Seen.Addr() != netip.MustParseAddr("192.168.122.1") {
		t.Errorf("the host's own packet: %v", got)
	}
	// An unmanaged bridge whose guest uses an address of the network.
	r.Must("ip", "link", "add", "strange0", "type", "bridge")
	r.Must("ip", "addr", "add", "10.99.0.1/24", "dev", "strange0")
	r.Must("ip", "link", "set", "strange0", "up")
	stranger := r.Guest("strange0", "stranger", "10.99.0.10/24")
	stranger.Must("ip", "addr", "add", "192.168.122.77/32", "dev", "lo")
	got = host.Try(stranger, internet, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("203.0.113.1:0"), From: netip.MustParseAddrPort("192.168.122.77:0")})
	if got.Seen.Addr() != netip.MustParseAddr("192.168.122.77") {
		t.Errorf("a stranger's packet: %v", got)
	}
}

// TestForgedSourcesAreDropped is D4: no reply goes to another host's address, and
// the packet does not leave.
func TestForgedSourcesAreDropped(t *testing.T) {
	t.Parallel()
	r, guest, internet := natHost(t, rig.NatXML("<nat ipv6='yes'/>"))
	guest.Must("ip", "addr", "add", "10.66.0.66/32", "dev", "lo")
	guest.Must("ip", "-6", "addr", "add", "2001:db8:bad::1/128", "dev", "lo", "nodad")
	for to, from := range map[string]string{rig.Internet4: "10.66.0.66:0", rig.Internet6: "[2001:db8:bad::1]:0"} {
		for _, proto := range []host.Proto{host.TCP, host.UDP} {
			got := host.Try(guest, internet, host.Probe{Proto: proto, To: netip.AddrPortFrom(netip.MustParseAddr(to), 0), From: netip.MustParseAddrPort(from)})
			if !got.TimedOut || got.Seen.IsValid() {
				t.Errorf("%s from %s: %v", proto, from, got)
			}
		}
	}
	if c := r.Counters("default"); c["RejectedFromGuestPackets"] < 4 {
		t.Errorf("forged packets are not counted: %v", c)
	}
}

// TestSubnetBehindAGuest is D3: what a <route> names passes like the network's
// own subnet, and the two see each other's real addresses. A /24 is an element of
// sets; for another length the network has chains of its own.
func TestSubnetBehindAGuest(t *testing.T) {
	for _, bits := range []string{"16", "24"} {
		t.Run(bits, func(t *testing.T) {
			t.Parallel()
			wantBehindAGuest(t, bits)
		})
	}
}

func wantBehindAGuest(t *testing.T, bits string) {
	t.Helper()
	route := fmt.Sprintf("<route address='10.9.0.0' prefix='%s' gateway='192.168.122.10'/>", bits)
	r, router, internet := natHost(t, strings.Replace(rig.NatXML(""), "</network>", route+"</network>", 1))
	r.Must("ip", "route", "add", "10.9.0.0/"+bits, "via", "192.168.122.10")
	router.Must("ip", "addr", "add", "10.9.0.1/"+bits, "dev", "lo")
	p := host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("203.0.113.1:0"), From: netip.MustParseAddrPort("10.9.0.1:0")}
	if got := host.Try(router, internet, p); !got.Reached || got.Seen.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("from behind the guest: %v", got)
	}
	other := r.Guest("virbr0", "other", "192.168.122.20/24")
	p = host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("10.9.0.1:0")}
	if got := host.Try(other, router, p); !got.Reached || got.Seen.Addr() != netip.MustParseAddr("192.168.122.20") {
		t.Errorf("to behind the guest, through the host: %v", got)
	}
	router.Must("ip", "route", "add", "192.168.122.20", "via", "192.168.122.1")
	p = host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("192.168.122.20:0"), From: netip.MustParseAddrPort("10.9.0.1:0")}
	if got := host.Try(router, other, p); !got.Reached || got.Seen.Addr() != netip.MustParseAddr("10.9.0.1") {
		t.Errorf("from behind the guest to another one, through the host: %v", got)
	}
}

// TestNoIPv6MeansNone is D9: a network without IPv6 forwards none.
func TestNoIPv6MeansNone(t *testing.T) {
	t.Parallel()
	r, guest, internet := natHost(t, rig.NetXML("default", "virbr0", "nat", rig.NatNet))
	r.Must("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
	for _, proto := range []host.Proto{host.TCP, host.UDP} {
		if got := host.Try(guest, internet, host.Probe{Proto: proto, To: netip.AddrPortFrom(netip.MustParseAddr(rig.Internet6), 0)}); !got.Refused || got.Seen.IsValid() {
			t.Errorf("%s out: %v", proto, got)
		}
		in := host.Probe{Proto: proto, To: netip.MustParseAddrPort("[2001:db8:122::10]:0")}
		if got := host.Try(internet, guest, in); !got.Refused || got.Seen.IsValid() {
			t.Errorf("%s in: %v", proto, got)
		}
	}
}

// TestRefusedTCPEndsAtOnce is D4: a reset in both families.
func TestRefusedTCPEndsAtOnce(t *testing.T) {
	t.Parallel()
	_, guest, internet := natHost(t, rig.NatXML("<nat ipv6='yes'/>"))
	for _, to := range []string{"192.168.122.10:0", "[2001:db8:122::10]:0"} {
		got := host.Try(internet, guest, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort(to)})
		if !got.Refused || got.How != "TCP reset" {
			t.Errorf("to %s: %v", to, got)
		}
	}
}

// TestBridgedTrafficIsLeftAlone: with br_netfilter on, as dockerd leaves it,
// frames between two guests of a bridge meet the rules too. They pass as they
// are, multicast and broadcasts included, in every mode.
func TestBridgedTrafficIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"nat6", "route", "isolated"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r, guest, _ := natHost(t, rig.NetXML("default", "virbr0", mode, rig.NatNet, "2001:db8:122::1/64"))
			for _, family := range []string{"iptables", "ip6tables"} {
				r.Must("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-"+family+"=1")
			}
			other := r.Guest("virbr0", "other", "192.168.122.20/24", "2001:db8:122::20/64")
			before := r.Counters("default")
			for from, to := range map[string]string{"192.168.122.10:900": "192.168.122.20:0", "[2001:db8:122::10]:900": "[2001:db8:122::20]:0"} {
				for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
					p := host.Probe{Proto: proto, To: netip.MustParseAddrPort(to), From: netip.MustParseAddrPort(from)}
					if got := host.Try(guest, other, p); !got.Reached || got.Seen.Addr() != p.From.Addr() {
						t.Errorf("%s: %v", p, got)
					}
				}
			}
			for _, to := range []string{"224.0.0.251:5353", "255.255.255.255:5353", "[ff02::fb]:5353"} {
				if seen := shout(t, guest, other, netip.MustParseAddrPort(to)); seen.Port() != 900 {
					t.Errorf("to %s: the other guest saw %v", to, seen)
				}
			}
			if after := r.Counters("default"); !maps.Equal(before, after) {
				t.Errorf("traffic on the bridge was counted: %v, then %v", before, after)
			}
		})
	}
}

// shout sends one datagram from port 900 of a node to a group or to everybody,
// and returns the source that another node saw; the zero value for none.
func shout(t *testing.T, from, to host.Node, at netip.AddrPort) (seen netip.AddrPort) {
	t.Helper()
	network, zone := "udp4", ""
	if at.Addr().Is6() {
		network, zone = "udp6", "%eth0"
	}
	var in net.PacketConn
	listen := func() (err error) {
		if at.Addr().IsMulticast() {
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			in, err = net.ListenMulticastUDP(network, eth0, net.UDPAddrFromAddrPort(at))
			return err
		}
		in, err = net.ListenPacket(network, fmt.Sprintf(":%d", at.Port()))
		return err
	}
	err := to.Do(listen)
	// A process that another test is just starting may hold the last socket.
	for deadline := time.Now().Add(host.Patient(2 * time.Second)); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline); err = to.Do(listen) {
		time.Sleep(10 * time.Millisecond)
	}
	rig.Must(t, err)
	defer in.Close()
	sender := fmt.Sprintf("UDP-DATAGRAM:%s%s:%d,broadcast", at.Addr(), zone, at.Port())
	if at.Addr().Is6() {
		sender = fmt.Sprintf("UDP6-DATAGRAM:[%s%s]:%d,bind=[::]:900", at.Addr(), zone, at.Port())
	}
	if at.Addr().Is4() {
		sender += ",bind=192.168.122.10:900,so-bindtodevice=eth0"
	}
	if out, err := from.(*host.Peer).RunInput("hello", "socat", "-", sender); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = in.SetReadDeadline(time.Now().Add(host.Patient(2 * time.Second)))
	if _, source, err := in.ReadFrom(make([]byte, 100)); err == nil {
		seen = source.(*net.UDPAddr).AddrPort()
	}
	return seen
}
