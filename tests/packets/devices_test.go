package packets

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// throughUplink is a network that may forward to the interface uplink0 alone.
func throughUplink() string {
	return strings.Replace(rig.NatXML("<nat ipv6='yes'/>"), "mode='nat'", "mode='nat' dev='uplink0'", 1)
}

// onlyThrough checks what a guest reaches: the internet by wan0, the LAN by lan0.
func onlyThrough(t *testing.T, guest, internet, lan *host.Peer, wan bool, when string) {
	t.Helper()
	for to, want := range map[string]string{rig.Internet4: "203.0.113.2", rig.Internet6: "2001:db8:ffff::2"} {
		got := host.Try(guest, internet, host.Probe{Proto: host.TCP, To: netip.AddrPortFrom(netip.MustParseAddr(to), 0)})
		if got.Reached != wan || (wan && got.Seen.Addr() != netip.MustParseAddr(want)) || (!wan && got.Seen.IsValid()) {
			t.Errorf("%s: to %s: %v, want it reached: %v", when, to, got, wan)
		}
	}
	if lan == nil {
		return
	}
	got := host.Try(guest, lan, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("198.51.100.1:0")})
	if got.Seen.IsValid() {
		t.Errorf("%s: through a device that the network does not have: %v", when, got)
	}
}

// TestForwardDeviceByAlternativeName: packets have a link's own name, a document
// may have another one; and one that no link has opens nothing and is reported.
func TestForwardDeviceByAlternativeName(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			r.Announce(rig.Uncovered)
			r.Write(rig.ConfigFile, "firewall_backend = \""+backend+"\"\n")
			r.StartDaemon()
			r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
			internet, lan := r.Internet(), r.Lan()
			guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
			r.OK(r.AddXML(throughUplink()))
			missing(r, "added")
			onlyThrough(t, guest, internet, lan, false, "no link has the name")

			r.Must("ip", "link", "property", "add", "dev", "wan0", "altname", "uplink0")
			r.AwaitState("default", "active")
			onlyThrough(t, guest, internet, lan, true, "wan0 has the name")
			if n := r.Reapply(); n != 0 {
				t.Errorf("%d repairs where all is well", n)
			}
			r.Restart(true)
			onlyThrough(t, guest, internet, lan, true, "restarted")
			if state, reason := r.State("default"); state != "active" {
				t.Errorf("restarted, it is %s: %s", state, reason)
			}

			rename(r, "wan0", "wan7")
			r.Until("the rules have the link's new name", func() bool { return strings.Contains(rig.OwnRules(r.Host, backend), "wan7") })
			r.Must("ip", "link", "property", "del", "dev", "wan7", "altname", "uplink0")
			r.AwaitState("default", "degraded")
			missing(r, "the name is gone")
			onlyThrough(t, guest, internet, lan, false, "the name is gone")
			// The routes by wan7 went where it had to be down for its new name.
			r.Must("ip", "link", "property", "add", "dev", "lan0", "altname", "uplink0")
			r.AwaitState("default", "active")
			got := host.Try(guest, lan, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("198.51.100.1:0")})
			if !got.Reached || got.Seen.Addr() != netip.MustParseAddr("198.51.100.2") {
				t.Errorf("lan0 has the name: %v", got)
			}
			onlyThrough(t, guest, internet, nil, false, "lan0 has the name")
		})
	}
}

// missing wants the network reported for its device, which no link has.
func missing(r *rig.Rig, when string) {
	r.T.Helper()
	state, reason := r.State("default")
	code := r.Property("default", "StateCode")
	if state != "degraded" || code != "forward-device-missing" || !strings.Contains(reason, "uplink0") {
		r.T.Errorf("%s: it is %s (%v): %s", when, state, code, reason)
	}
}
