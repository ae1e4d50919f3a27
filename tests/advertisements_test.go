package tests

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// liar is a guest that advertises itself as the host's router, with a prefix.
type liar struct {
	*rig
	ns netns.NsHandle
}

const liarsPrefix = "2001:db8:bad::/64"

// newLiar makes virbr0 with a guest on it. The host listens to advertisements
// there, as the kernel does by default.
func newLiar(t *testing.T) *liar {
	t.Helper()
	r := newRig(t)
	r.Bridge("virbr0", natNet)
	r.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=1", "net.ipv6.conf.virbr0.autoconf=1")
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	ns, err := netns.GetFromPath(guest.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &liar{rig: r, ns: ns}
}

// advertise sends advertisements until ok.
func (l *liar) advertise(ok func() bool) {
	l.t.Helper()
	runtime.LockOSThread() // it enters the guest's namespace and comes back
	defer runtime.UnlockOSThread()
	watchtest.AdvertisePrefix(l.t, l.ns, "eth0", 30*time.Minute, liarsPrefix, ok)
}

// teach advertises until the host believes it.
func (l *liar) teach() {
	l.t.Helper()
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

// picture is what a guest could change on the host.
func (l *liar) picture() string {
	return l.Must("sh", "-c", "ip -6 route; ip -6 -o addr | sed 's/valid_lft.*//'; ip -4 route")
}

// wantIgnored advertises a number of times and compares what the host has.
func (l *liar) wantIgnored(when string) {
	l.t.Helper()
	before, n := l.picture(), 0
	l.advertise(func() bool { n++; return n > 10 })
	if after := l.picture(); after != before || l.believes() > 0 {
		l.t.Errorf("%s: a guest's advertisement changed the host:\n%s, before\n%s", when, after, before)
	}
	l.wantListening(when, "0", "0")
}

func (l *liar) wantListening(when, accept, autoconf string) {
	l.t.Helper()
	if a, b := l.sysctl("net.ipv6.conf.virbr0.accept_ra"), l.sysctl("net.ipv6.conf.virbr0.autoconf"); a != accept || b != autoconf {
		l.t.Errorf("%s: accept_ra is %s and autoconf %s, want %s and %s", when, a, b, accept, autoconf)
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
			l.Announce(uncovered)
			l.StartDaemon()
			l.switchTo(backend)
			l.must(l.AddXML(netXML("default", "virbr0", "isolated", natNet), "Persistent", true))
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
			l.must(l.Manager("RemoveNetwork", "default", opts("Persistent", true)))
			l.wantListening("removed", "1", "1")
			l.teach()
		})
	}
}

// listensAgain has somebody switch advertisements on again: the first that the
// host takes is noticed.
func (l *liar) listensAgain(t *testing.T) {
	t.Helper()
	told := l.repairs()
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.accept_ra=2")
	start := time.Now()
	l.advertise(func() bool { return l.sysctl("net.ipv6.conf.virbr0.accept_ra") == "0" })
	l.until("the host believes nothing", func() bool { return l.believes() == 0 })
	t.Logf("switched on by somebody: off again %s later", time.Since(start).Round(time.Millisecond))
	l.wantIgnored("switched on by somebody")
	l.until("it is told", func() bool { return total(told()) > 0 })
	if causes := told()["default"]; len(causes) != 1 || !strings.Contains(causes[0], "router advertisements") {
		t.Errorf("told %q", told())
	}
	// Where no advertisement comes, a comparison notices it, and counts it.
	l.Must("sysctl", "-q", "-w", "net.ipv6.conf.virbr0.autoconf=1")
	if n := l.reapply(); n != 1 {
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
	l.must(l.AddXML(netXML("default", "virbr0", "open", natNet)))
	l.wantListening("open", "0", "0")
	l.must(l.Network("default", "Update", opts("Bridge", "virbr1", "Addresses", []string{"192.168.123.1/24"}), opts()))
	l.wantListening("the network has another bridge", "2", "1")
	if got := l.sysctl("net.ipv6.conf.virbr1.accept_ra"); got != "0" {
		t.Errorf("on the new bridge accept_ra is %s", got)
	}
	l.must(l.Network("default", "Update", opts("Bridge", "virbr0", "Addresses", []string{natNet}), opts()))
	l.wantListening("it has the first again", "0", "0")
	l.KillDaemon()
	l.Must("virtfirewalld", "--flush")
	l.wantListening("flushed", "2", "1")

	l.StartDaemon()
	l.must(l.AddXML(netXML("default", "virbr0", "nat", natNet)))
	l.KillDaemon()
	l.Must("ip", "link", "del", "virbr0")
	l.Bridge("virbr0", natNet)
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
	l.must(l.AddXML(netXML("default", "virbr0", "isolated", natNet)))
	l.Bridge("virbr1", "192.168.123.1/24", "2001:db8:123::1/64")
	l.must(l.AddXML(netXML("second", "virbr1", "route", "192.168.123.1/24", "2001:db8:123::1/64")))
	if state, reason := l.State("second"); state != "active" || l.sysctl(forward6) != "1" {
		t.Errorf("the second network is %s: %s; forwarding is %s", state, reason, l.sysctl(forward6))
	}
	guest := l.Guest("virbr1", "honest", "192.168.123.10/24", "2001:db8:123::10/64")
	internet := l.Internet()
	for _, p := range []host.Probe{{Proto: host.TCP, To: netip.MustParseAddrPort("203.0.113.1:0")}, {Proto: host.TCP, To: netip.MustParseAddrPort("[2001:db8:ffff::1]:0")}} {
		if got := host.Try(guest, internet, p); !got.Reached {
			t.Errorf("%s: %v", p, got)
		}
	}
}
