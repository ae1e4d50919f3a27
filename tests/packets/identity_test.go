package packets

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// eachBackend runs a test with either backend.
func eachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			test(t, backend)
		})
	}
}

// identityRig returns rig.WithNAT with a persistent network and a backend.
func identityRig(t *testing.T, backend string) (r *rig.Rig, guest, internet *host.Peer) {
	t.Helper()
	r = rig.Started(t)
	r.Announce("iptables holds libvirt's own rules")
	r.OK(r.Manager("SetBackend", backend, rig.Opts("Persistent", true)))
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "Persistent", true))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
}

// held checks that the guest has its network, and no more than that.
func held(t *testing.T, guest, internet *host.Peer, when string) {
	t.Helper()
	rig.Natted(t, guest, internet, when)
	rig.Guarded(t, guest, internet, when)
}

// TestRenamedBridgeIsKnownAgain: which link a network has outlives the service,
// whatever the link is called meanwhile and whoever has its old name.
func TestRenamedBridgeIsKnownAgain(t *testing.T) {
	t.Parallel()
	eachBackend(t, func(t *testing.T, backend string) {
		r, guest, internet := identityRig(t, backend)
		held(t, guest, internet, "before")
		rename(r, "virbr0", "away0")
		r.Findings.Await("bridge-renamed", "away0")
		held(t, guest, internet, "renamed")
		r.KillDaemon()
		r.StartDaemon()
		held(t, guest, internet, "killed and started")
		r.OK(r.Manager("Reload"))
		held(t, guest, internet, "reloaded")
		r.OK(r.Manager("Reapply"))
		held(t, guest, internet, "reapplied")

		r.StopDaemon()
		rename(r, "away0", "far0")
		r.StartDaemon()
		r.Findings.Await("bridge-renamed", "far0")
		held(t, guest, internet, "renamed while the service was down")

		// Another bridge has the old name: it is unmanaged.
		r.Bridge("virbr0", "10.9.0.1/24")
		other := r.Guest("virbr0", "other", "10.9.0.10/24")
		r.Must("ip", "link", "set", "virbr0", "up")
		for _, step := range []string{"stayed", "restarted", "reloaded"} {
			switch step {
			case "restarted":
				r.KillDaemon()
				r.StartDaemon()
			case "reloaded":
				r.OK(r.Manager("Reload"))
			}
			held(t, guest, internet, "the old name is another bridge's; "+step)
			if st, reason := r.State("default"); st != "active" {
				t.Errorf("%s: the network is %s: %s", step, st, reason)
			}
			r.Until("the other bridge is nobody's", func() bool {
				out := host.Try(internet, other, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("10.9.0.10:0")})
				return out.Seen.IsValid()
			})
		}

		// When the link is really gone the name counts again.
		r.Must("ip", "link", "del", "far0")
		r.Until("the network takes the bridge of its name", func() bool { return r.Findings.Of("bridge-renamed") == "" })
		r.AwaitState("default", "active")
	})
}

// TestBackendSwitchKeepsRenamedBridge moves a renamed bridge to the other
// backend and back.
func TestBackendSwitchKeepsRenamedBridge(t *testing.T) {
	t.Parallel()
	r, guest, internet := identityRig(t, "nftables")
	rename(r, "virbr0", "away0")
	r.Findings.Await("bridge-renamed", "away0")
	for _, backend := range []string{"iptables", "nftables"} {
		r.OK(r.Manager("SetBackend", backend, rig.Opts()))
		held(t, guest, internet, "moved to "+backend)
	}
}

// TestAlternativeNamesAreOneBridge: a link's alternative name leads to the link,
// and no two networks have one link.
func TestAlternativeNamesAreOneBridge(t *testing.T) {
	t.Parallel()
	r, guest, internet := identityRig(t, "nftables")
	r.Must("ip", "link", "property", "add", "dev", "virbr0", "altname", "lan-of-guests")
	r.WantError(r.AddXML(rig.NetXML("second", "lan-of-guests", "isolated", "10.7.0.1/24")), "BridgeInUse")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts("Persistent", true)))
	r.OK(r.AddXML(rig.NetXML("second", "lan-of-guests", "nat", rig.NatNet), "Persistent", true))
	if bridge := r.Property("second", "Bridge"); bridge != "virbr0" {
		t.Errorf("the network is stored under %s, not the link's own name", bridge)
	}
	held(t, guest, internet, "asked for by an alternative name")
	r.WantError(r.AddXML(rig.NetXML("default", "virbr0", "nat", "10.8.0.1/24")), "BridgeInUse")
	r.StopDaemon()
	r.Write("/etc/virtfirewalld/networks/aaa.xml", rig.NetXML("aaa", "lan-of-guests", "isolated", "10.7.0.1/24"))
	r.StartDaemon()
	held(t, guest, internet, "beside a file with the alternative name")
	if st, _ := r.State("aaa"); st != "waiting" || !strings.Contains(r.Findings.Of("bridge-taken"), "aaa") {
		t.Errorf("the second network of the link is %s; found: %q", st, r.Findings.All())
	}
}

// TestZoneFollowsRenamedBridge: firewalld knows interfaces by name, so the new
// name enters the zone and the old one leaves it, for whoever has it next.
func TestZoneFollowsRenamedBridge(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	rename(r, "virbr0", "away0")
	r.Firewalld.AwaitZone("default", "away0", "libvirt")
	r.Until("the old name leaves the zone", func() bool { return r.Firewalld.ZoneOf("virbr0") == "" })
	r.AwaitState("default", "active")
	r.KillDaemon()
	r.StartDaemon()
	r.Firewalld.AwaitZone("default", "away0", "libvirt")
	r.Bridge("virbr0", "10.9.0.1/24")
	r.OK(r.Manager("Reapply"))
	if zone := r.Firewalld.ZoneOf("virbr0"); zone != "" {
		t.Errorf("another bridge with the old name is in zone %s", zone)
	}
	rename(r, "virbr0", "other0")
	rename(r, "away0", "virbr0")
	r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	r.Until("the new name leaves the zone", func() bool { return r.Firewalld.ZoneOf("away0") == "" })
}
