package packets

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// forwardingPlaces are the settings that can stop a guest's traffic, each with
// the network that its repair is told of: "" for the host.
var forwardingPlaces = []struct{ key, name string }{
	{rig.Forward4, ""},
	{"net.ipv4.conf.all.forwarding", ""},
	{"net.ipv4.conf.virbr0.forwarding", "default"},
	{"net.ipv4.conf.wan0.forwarding", ""},
	{rig.Forward6, ""},
	{"net.ipv6.conf.virbr0.forwarding", "default"},
}

// TestForwardingSwitchedOffComesBack by itself, wherever it was switched off, and
// is reported once.
func TestForwardingSwitchedOffComesBack(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := rig.Started(t)
			r.Announce(rig.Uncovered)
			r.SwitchTo(backend)
			r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat6", rig.NatNet, "2001:db8:122::1/64")))
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
			r.OK(r.Manager("Reapply"))
			told := r.Repairs()
			count := 0
			for _, place := range forwardingPlaces {
				streams := streamBoth(t, guest, internet, 4000+count)
				start := time.Now()
				r.Must("sysctl", "-q", "-w", place.key+"=0")
				r.Until(place.key+" is on again", func() bool { return r.Sysctl(place.key) == "1" })
				took := time.Since(start)
				for family, s := range streams {
					report := s.Stop()
					t.Logf("%s, %s: on again within %s; %s: lost %d of %d, longest gap %s",
						backend, place.key, took.Round(time.Millisecond), family, report.Lost, report.Sent, report.LongestGap.Round(time.Millisecond))
					if report.LongestGap > host.Patient(time.Second) {
						t.Errorf("%s: nothing of %s arrived for %s", place.key, family, report.LongestGap)
					}
				}
				count++
				key := strings.Replace(place.key, "conf.all.forwarding", "ip_forward", 1)
				if strings.Contains(place.key, "ipv6") {
					key = place.key
				}
				r.Until("it is told", func() bool { return total(told()) >= count })
				if causes := told()[place.name]; total(told()) != count || causes[len(causes)-1] != key+" had been switched off" {
					t.Errorf("after %s=0 Repaired was told: %q", place.key, told())
				}
			}
			if n := r.Reapply(); n != 0 {
				t.Errorf("afterwards %d networks need repair", n)
			}
			if state, reason := r.State("default"); state != "active" {
				t.Errorf("the network is %s: %s", state, reason)
			}
			// What decides nothing is left alone: the host learns routes there.
			r.Must("sysctl", "-q", "-w", "net.ipv6.conf.wan0.forwarding=0")
			if n := r.Reapply(); n != 0 || r.Sysctl("net.ipv6.conf.wan0.forwarding") != "0" {
				t.Errorf("an uplink's own switch of IPv6 counts: %d repairs", n)
			}
		})
	}
}

func total(told map[string][]string) (n int) {
	for _, causes := range told {
		n += len(causes)
	}
	return n
}

// streamBoth sends a packet each millisecond to the internet, of both families.
func streamBoth(t *testing.T, from, to host.Node, port int) map[string]*host.Stream {
	t.Helper()
	streams := map[string]*host.Stream{}
	for family, at := range map[string]string{"IPv4": "203.0.113.1", "IPv6": "2001:db8:ffff::1"} {
		s, err := host.StartStream(from, to, host.StreamConfig{To: netip.AddrPortFrom(netip.MustParseAddr(at), uint16(port)), Rate: 1000})
		rig.Must(t, err)
		streams[family] = s
	}
	return streams
}

// TestIsolatedNetworkNeedsNoForwarding: the switch is its administrator's then.
func TestIsolatedNetworkNeedsNoForwarding(t *testing.T) {
	t.Parallel()
	r := rig.Started(t, host.WithForwarding())
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "isolated", rig.NatNet, "2001:db8:122::1/64")))
	told := r.Repairs()
	for _, key := range []string{rig.Forward4, rig.Forward6} {
		r.Must("sysctl", "-q", "-w", key+"=0")
	}
	if n := r.Reapply(); n != 0 || total(told()) > 0 || r.Sysctl(rig.Forward4) != "0" || r.Sysctl(rig.Forward6) != "0" {
		t.Errorf("%d repairs, told %v, forwarding is %s and %s", n, told(), r.Sysctl(rig.Forward4), r.Sysctl(rig.Forward6))
	}
}

// TestForwardingThatIsFoughtOver: State names the setting that is fought over
// until the fight ends, and a requested comparison restores it at once and counts
// it.
func TestForwardingThatIsFoughtOver(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	for i, name := range []string{"default", "second"} {
		address := []string{rig.NatNet, "192.168.123.1/24"}[i]
		r.Bridge([]string{"virbr0", "virbr1"}[i], address)
		r.OK(r.AddXML(rig.NetXML(name, []string{"virbr0", "virbr1"}[i], "nat", address)))
	}
	told := r.Repairs()
	opponent := r.Start("opponent", "sh", "-c", "while :; do echo 0 > /proc/sys/net/ipv4/ip_forward; sleep 0.05; done")
	took := r.AwaitState("default", "degraded")
	state, reason := r.State("second")
	if state != "degraded" || !strings.Contains(reason, "another program keeps switching net.ipv4.ip_forward off") {
		t.Errorf("the second network is %s: %s", state, reason)
	}
	if code := r.Property("default", "StateCode"); code != "forwarding-off" {
		t.Errorf("StateCode is %v", code)
	}
	repairs := total(told())
	r.Until("it is off during a pause", func() bool { return r.Sysctl(rig.Forward4) == "0" })
	rig.Must(t, opponent.Kill())
	r.Must("sysctl", "-q", "-w", rig.Forward4+"=0")
	if n := r.Reapply(); n != 2 || r.Sysctl(rig.Forward4) != "1" {
		t.Errorf("reapply mended %d networks, forwarding is %s", n, r.Sysctl(rig.Forward4))
	}
	over := r.AwaitState("default", "active") + r.AwaitState("second", "active")
	t.Logf("degraded after %s and %d repairs, active %s after the opponent's end", took, repairs, over)
	if causes := told()["default"]; len(causes) > 0 || !slices.Contains(told()[""], "net.ipv4.ip_forward had been switched off") {
		t.Errorf("told %v", told())
	}
}
