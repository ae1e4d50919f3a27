package packets

import (
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

// liar is a guest that advertises itself as the host's router, with a prefix.
type liar struct {
	*rig.Rig
	ns netns.NsHandle
}

const liarsPrefix = "2001:db8:bad::/64"

// newLiar makes virbr0 with a guest on it. The host listens to advertisements
// there, as the kernel does by default.
func newLiar(t *testing.T) *liar {
	t.Helper()
	r := rig.New(t)
	r.Bridge("virbr0", rig.NatNet)
	r.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=1", "net.ipv6.conf.virbr0.autoconf=1")
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	ns, err := netns.GetFromPath(guest.NetNS())
	rig.Must(t, err)
	t.Cleanup(func() { ns.Close() })
	return &liar{Rig: r, ns: ns}
}

// advertise sends advertisements until ok.
func (l *liar) advertise(ok func() bool) {
	l.T.Helper()
	runtime.LockOSThread() // it enters the guest's namespace and comes back
	defer runtime.UnlockOSThread()
	watchtest.AdvertisePrefix(l.T, l.ns, "eth0", 30*time.Minute, liarsPrefix, ok)
}

// teach advertises until the host believes it.
func (l *liar) teach() {
	l.T.Helper()
	l.advertise(func() bool { return l.believes() == 3 })
}

// believes counts what the host has of the guest: a default route, a route to
// the prefix, an address in it.
func (l *liar) believes() (n int) {
	out := l.Must("sh", "-c", "ip -6 route show dev virbr0; ip -6 addr show dev virbr0")
	for _, part := range []string{"default via fe80::", "2001:db8:bad::/64 proto kernel", "inet6 2001:db8:bad:"} {
		if strings.Contains(out, part) {
			n++
		}
	}
	return n
}

// picture returns what a guest could change on the host.
func (l *liar) picture() string {
	return l.Must("sh", "-c", "ip -6 route; ip -6 -o addr | sed 's/valid_lft.*//'; ip -4 route")
}

// wantIgnored advertises a number of times and compares what the host has.
func (l *liar) wantIgnored(when string) {
	l.T.Helper()
	before, n := l.picture(), 0
	l.advertise(func() bool { n++; return n > 10 })
	rig.Same(l.T, when+": the host after a guest's advertisement", before, l.picture())
	if n := l.believes(); n > 0 {
		l.T.Errorf("%s: the host believes %d of a guest's advertisements", when, n)
	}
	l.wantListening(when, "0", "0")
}

func (l *liar) wantListening(when, accept, autoconf string) {
	l.T.Helper()
	if a, b := l.Sysctl("net.ipv6.conf.virbr0.accept_ra"), l.Sysctl("net.ipv6.conf.virbr0.autoconf"); a != accept || b != autoconf {
		l.T.Errorf("%s: accept_ra is %s and autoconf %s, want %s and %s", when, a, b, accept, autoconf)
	}
}

// TestGuestsAdvertisementsAreIgnored from the call that governs its bridge on,
// whatever happens to the service, and what was set before is restored after.
func TestGuestsAdvertisementsAreIgnored(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			l.teach()
			l.Announce(rig.Uncovered)
			l.StartDaemon()
			l.SwitchTo(backend)
			l.OK(l.AddXML(rig.NetXML("default", "virbr0", "isolated", rig.NatNet), "Persistent", true))
			if n := l.believes(); n > 0 {
				t.Errorf("the host still believes %d things that the guest said:\n%s", n, l.picture())
			}
			l.wantIgnored("governed")
			l.KillDaemon()
			l.wantIgnored("killed")
			l.StartDaemon()
			l.wantIgnored("started again")
			l.Must("ip", "link", "set", "virbr0", "down")
			l.Must("ip", "link", "set", "virbr0", "name", "other", "up")
			l.Must("ip", "link", "set", "other", "down")
			l.Must("ip", "link", "set", "other", "name", "virbr0", "up")
			l.AwaitState("default", "active")
			l.wantIgnored("renamed and back")
			l.listensAgain(t)
			l.OK(l.Manager("RemoveNetwork", "default", rig.Opts("Persistent", true)))
			l.wantListening("removed", "1", "1")
			l.teach()
		})
	}
}

// listensAgain switches advertisements on again by hand: the first that the
// host takes is noticed.
func (l *liar) listensAgain(t *testing.T) {
	t.Helper()
	told := l.Repairs()
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=2")
	start := time.Now()
	l.advertise(func() bool { return l.Sysctl("net.ipv6.conf.virbr0.accept_ra") == "0" })
	l.Until("the host believes nothing", func() bool { return l.believes() == 0 })
	t.Logf("switched on by somebody: off again %s later", time.Since(start).Round(time.Millisecond))
	l.wantIgnored("switched on by somebody")
	l.Until("it is told", func() bool { return total(told()) > 0 })
	if causes := told()["default"]; len(causes) != 1 || !strings.Contains(causes[0], "router advertisements") {
		t.Errorf("told %q", told())
	}
	// Where no advertisement comes, a comparison notices it, and counts it.
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.autoconf=1")
	if n := l.Reapply(); n != 1 {
		t.Errorf("reapply mended %d networks", n)
	}
	l.wantListening("compared", "0", "0")
}

// TestAdvertisementsAreRestored where a bridge is no network's any more: by an
// update, by a flush, and not where another bridge has its name.
func TestAdvertisementsAreRestored(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=2")
	l.Bridge("virbr1")
	l.StartDaemon()
	l.OK(l.AddXML(rig.NetXML("default", "virbr0", "open", rig.NatNet)))
	l.wantListening("open", "0", "0")
	l.OK(l.Network("default", "Update", rig.Opts("Bridge", "virbr1", "Addresses", []string{"192.168.123.1/24"}), rig.Opts()))
	l.wantListening("the network has another bridge", "2", "1")
	if got := l.Sysctl("net.ipv6.conf.virbr1.accept_ra"); got != "0" {
		t.Errorf("on the new bridge accept_ra is %s", got)
	}
	l.OK(l.Network("default", "Update", rig.Opts("Bridge", "virbr0", "Addresses", []string{rig.NatNet}), rig.Opts()))
	l.wantListening("it has the first again", "0", "0")
	l.KillDaemon()
	l.Must("virtfirewalld", "--flush")
	l.wantListening("flushed", "2", "1")

	l.StartDaemon()
	l.OK(l.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	l.KillDaemon()
	l.Must("ip", "link", "del", "virbr0")
	l.Bridge("virbr0", rig.NatNet)
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=1")
	l.StartDaemon()
	l.AwaitState("default", "active")
	l.wantListening("another bridge has the name", "0", "0")
	l.KillDaemon()
	// A flush that cannot run the service restores it as well.
	out, err := l.Run("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "virtfirewalld", "--flush")
	if err == nil {
		t.Errorf("a flush without a bus succeeds: %s", out)
	}
	l.wantListening("flushed without a bus", "1", "1")
}

// TestGuestsRouteIsInNobodysWay: it neither keeps IPv6 forwarding off nor is it
// in a remedy.
func TestGuestsRouteIsInNobodysWay(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.teach()
	l.StartDaemon()
	l.OK(l.AddXML(rig.NetXML("default", "virbr0", "isolated", rig.NatNet)))
	l.Bridge("virbr1", "192.168.123.1/24", "2001:db8:123::1/64")
	l.OK(l.AddXML(rig.NetXML("second", "virbr1", "route", "192.168.123.1/24", "2001:db8:123::1/64")))
	if state, reason := l.State("second"); state != "active" || l.Sysctl(rig.Forward6) != "1" {
		t.Errorf("the second network is %s: %s; forwarding is %s", state, reason, l.Sysctl(rig.Forward6))
	}
	guest := l.Guest("virbr1", "honest", "192.168.123.10/24", "2001:db8:123::10/64")
	internet := l.Internet()
	for _, p := range []host.Probe{{Proto: host.TCP, To: netip.MustParseAddrPort("203.0.113.1:0")}, {Proto: host.TCP, To: netip.MustParseAddrPort("[2001:db8:ffff::1]:0")}} {
		if got := host.Try(guest, internet, p); !got.Reached {
			t.Errorf("%s: %v", p, got)
		}
	}
}
