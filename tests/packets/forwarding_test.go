package packets

import (
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

func TestForwardingIsSwitchedOnWhenNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mode, four, six string }{
		{"nat", "1", "1"}, {"route", "1", "1"}, {"open", "1", "1"}, {"isolated", "0", "0"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			r := rig.Started(t)
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", c.mode, rig.NatNet, "2001:db8:122::1/64")))
			if r.Sysctl(rig.Forward4) != "0" || r.Sysctl(rig.Forward6) != "0" {
				t.Error("forwarding is on though the bridge does not exist")
			}
			r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
			r.AwaitState("default", "active")
			if four, six := r.Sysctl(rig.Forward4), r.Sysctl(rig.Forward6); four != c.four || six != c.six {
				t.Errorf("forwarding is %s and %s, want %s and %s", four, six, c.four, c.six)
			}
			r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
			if four, six := r.Sysctl(rig.Forward4), r.Sysctl(rig.Forward6); four != c.four || six != c.six {
				t.Errorf("after removal forwarding is %s and %s, want %s and %s", four, six, c.four, c.six)
			}
		})
	}
}

func TestForwardingOfOneFamilyLeavesTheOther(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	if four, six := r.Sysctl(rig.Forward4), r.Sysctl(rig.Forward6); four != "1" || six != "0" {
		t.Errorf("forwarding is %s and %s", four, six)
	}
}

// TestAdvertisedRouteIsKept: IPv6 forwarding would make the kernel drop the
// host's own default route, which a router advertisement brought.
func TestAdvertisedRouteIsKept(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	router := r.Lan()
	r.Must("sysctl", "-q", "-w", "net.ipv6.conf.lan0.accept_ra=1")
	ns, err := netns.GetFromPath(router.NetNS())
	rig.Must(t, err)
	defer ns.Close()
	hasRoute := func() bool {
		out := r.Must("ip", "-6", "route", "show", "default")
		return strings.Contains(out, "dev lan0 proto ra")
	}
	runtime.LockOSThread() // it enters the router's namespace and comes back
	defer runtime.UnlockOSThread()
	watchtest.Advertise(t, ns, "eth0", 30*time.Minute, hasRoute)
	r.StartDaemon()

	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "route", rig.NatNet, "2001:db8:122::1/64")))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "net.ipv6.conf.lan0.accept_ra") {
		t.Errorf("the network is %s: %s", state, reason)
	}
	if r.Sysctl(rig.Forward4) != "1" || r.Sysctl(rig.Forward6) != "0" {
		t.Errorf("forwarding is %s and %s, want 1 and 0", r.Sysctl(rig.Forward4), r.Sysctl(rig.Forward6))
	}
	if !hasRoute() {
		t.Error("the advertised default route is gone")
	}

	r.Must("sysctl", "-q", "-w", "net.ipv6.conf.lan0.accept_ra=2")
	r.OK(r.Manager("Reapply"))
	if state, reason := r.State("default"); state != "active" {
		t.Errorf("after the remedy the network is %s: %s", state, reason)
	}
	if r.Sysctl(rig.Forward6) != "1" || !hasRoute() {
		t.Errorf("after the remedy forwarding is %s, route kept: %v", r.Sysctl(rig.Forward6), hasRoute())
	}
}

// flow is a UDP conversation that lasts.
type flow struct {
	client, server net.PacketConn
	to             net.Addr
}

func newFlow(t *testing.T, from, to host.Node, source, target string) *flow {
	t.Helper()
	f := &flow{to: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(target))}
	open := func(n host.Node, at string, conn *net.PacketConn) {
		err := n.Do(func() (err error) {
			*conn, err = net.ListenPacket("udp", at)
			return err
		})
		rig.Must(t, err)
		t.Cleanup(func() { (*conn).Close() })
	}
	open(from, source, &f.client)
	open(to, target, &f.server)
	return f
}

// seen sends a packet and its answer, and returns the source that the server saw
// and whether the answer came back: one that was on its way while its
// connection was forgotten does not.
func (f *flow) seen(t *testing.T) (from netip.Addr, answered bool) {
	t.Helper()
	if _, err := f.client.WriteTo([]byte("hello"), f.to); err != nil {
		t.Fatal(err)
	}
	_ = f.server.SetReadDeadline(time.Now().Add(host.Patient(5 * time.Second)))
	_, source, err := f.server.ReadFrom(make([]byte, 100))
	rig.Must(t, err)
	if _, err := f.server.WriteTo([]byte("hello"), source); err != nil {
		t.Fatal(err)
	}
	_ = f.client.SetReadDeadline(time.Now().Add(host.Patient(time.Second)))
	_, _, err = f.client.ReadFrom(make([]byte, 100))
	return source.(*net.UDPAddr).AddrPort().Addr(), err == nil
}

// TestFlowThatBeganTooEarly: a connection that the host forwarded before the
// network's NAT was there is translated soon after.
func TestFlowThatBeganTooEarly(t *testing.T) {
	t.Parallel()
	r := rig.Started(t, host.WithForwarding())
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
	// Something else on the host tracks connections already.
	r.Must("nft", "add table inet other; add chain inet other c { type filter hook forward priority 5; }; add rule inet other c ct state new accept")
	four := newFlow(t, guest, internet, "192.168.122.10:4000", "203.0.113.1:4000")
	six := newFlow(t, guest, internet, "[2001:db8:122::10]:4000", "[2001:db8:ffff::1]:4000")
	// The service looks for such connections soon after it answered the call.
	check := func(when, want4, want6 string) {
		t.Helper()
		for f, want := range map[*flow]string{four: want4, six: want6} {
			seen, answered := f.seen(t)
			for deadline := time.Now().Add(host.Patient(5 * time.Second)); seen != netip.MustParseAddr(want) || !answered; seen, answered = f.seen(t) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: the server saw %v, want %s; an answer came back: %v", when, seen, want, answered)
				}
			}
		}
	}
	check("before", "192.168.122.10", "2001:db8:122::10")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "route", rig.NatNet, "2001:db8:122::1/64")))
	check("routed", "192.168.122.10", "2001:db8:122::10")
	r.OK(r.Network("default", "Update", rig.Opts("ForwardMode", "nat"), rig.Opts()))
	check("NAT", "203.0.113.2", "2001:db8:122::10")
	r.OK(r.Network("default", "Update", rig.Opts("NATIPv6", true), rig.Opts()))
	check("NAT for IPv6 too", "203.0.113.2", "2001:db8:ffff::2")
}
