package tests

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
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

// identityRig is natRig with a persistent network and a backend.
func identityRig(t *testing.T, backend string) (r *rig, guest, internet *host.Peer) {
	t.Helper()
	r = startedRig(t)
	r.Announce("iptables holds libvirt's own rules")
	r.must(r.Manager("SetBackend", backend, opts("Persistent", true)))
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet), "Persistent", true))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
}

// held checks that the guest has its network, and no more than that.
func held(t *testing.T, guest, internet *host.Peer, when string) {
	t.Helper()
	natted(t, guest, internet, when)
	guarded(t, guest, internet, when)
}

// TestRenamedBridgeIsKnownAgain: which link a network has outlives the service,
// whatever the link is called meanwhile and whoever has its old name.
func TestRenamedBridgeIsKnownAgain(t *testing.T) {
	t.Parallel()
	eachBackend(t, func(t *testing.T, backend string) {
		r, guest, internet := identityRig(t, backend)
		held(t, guest, internet, "before")
		r.rename("virbr0", "away0")
		r.awaitFinding("bridge-renamed", "away0")
		held(t, guest, internet, "renamed")
		r.KillDaemon()
		r.StartDaemon()
		held(t, guest, internet, "killed and started")
		r.must(r.Manager("Reload"))
		held(t, guest, internet, "reloaded")
		r.must(r.Manager("Reapply"))
		held(t, guest, internet, "reapplied")

		r.StopDaemon()
		r.rename("away0", "far0")
		r.StartDaemon()
		r.awaitFinding("bridge-renamed", "far0")
		held(t, guest, internet, "renamed while the service was down")

		// Another bridge has the old name: it is nobody's.
		r.Bridge("virbr0", "10.9.0.1/24")
		other := r.Guest("virbr0", "other", "10.9.0.10/24")
		r.Must("ip", "link", "set", "virbr0", "up")
		for _, step := range []string{"stayed", "restarted", "reloaded"} {
			switch step {
			case "restarted":
				r.KillDaemon()
				r.StartDaemon()
			case "reloaded":
				r.must(r.Manager("Reload"))
			}
			held(t, guest, internet, "the old name is another bridge's; "+step)
			if st, reason := r.State("default"); st != "active" {
				t.Errorf("%s: the network is %s: %s", step, st, reason)
			}
			r.until("the other bridge is nobody's", func() bool {
				out := host.Try(internet, other, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("10.9.0.10:0")})
				return out.Seen.IsValid()
			})
		}

		// When the link is really gone the name counts again.
		r.Must("ip", "link", "del", "far0")
		r.until("the network takes the bridge of its name", func() bool { return r.found("bridge-renamed") == "" })
		r.AwaitState("default", "active")
	})
}

// TestBackendSwitchKeepsRenamedBridge moves a renamed bridge to the other
// backend and back.
func TestBackendSwitchKeepsRenamedBridge(t *testing.T) {
	t.Parallel()
	r, guest, internet := identityRig(t, "nftables")
	r.rename("virbr0", "away0")
	r.awaitFinding("bridge-renamed", "away0")
	for _, backend := range []string{"iptables", "nftables"} {
		r.must(r.Manager("SetBackend", backend, opts()))
		held(t, guest, internet, "moved to "+backend)
	}
}

// TestAlternativeNamesAreOneBridge: a link's alternative name leads to the link,
// and no two networks have one link.
func TestAlternativeNamesAreOneBridge(t *testing.T) {
	t.Parallel()
	r, guest, internet := identityRig(t, "nftables")
	r.Must("ip", "link", "property", "add", "dev", "virbr0", "altname", "lan-of-guests")
	r.wantError(r.AddXML(netXML("second", "lan-of-guests", "isolated", "10.7.0.1/24")), "BridgeInUse")
	r.must(r.Manager("RemoveNetwork", "default", opts("Persistent", true)))
	r.must(r.AddXML(netXML("second", "lan-of-guests", "nat", natNet), "Persistent", true))
	if bridge := r.Property("second", "Bridge"); bridge != "virbr0" {
		t.Errorf("the network is stored under %s, not the link's own name", bridge)
	}
	held(t, guest, internet, "asked for by an alternative name")
	r.wantError(r.AddXML(netXML("default", "virbr0", "nat", "10.8.0.1/24")), "BridgeInUse")
	r.StopDaemon()
	if err := r.WriteFile("/etc/virtfirewalld/networks/aaa.xml", []byte(netXML("aaa", "lan-of-guests", "isolated", "10.7.0.1/24")), 0o644); err != nil {
		t.Fatal(err)
	}
	r.StartDaemon()
	held(t, guest, internet, "beside a file with the alternative name")
	if st, _ := r.State("aaa"); st != "waiting" || !strings.Contains(r.found("bridge-taken"), "aaa") {
		t.Errorf("the second network of the link is %s; found: %q", st, r.findings())
	}
}

// TestZoneFollowsRenamedBridge: firewalld knows interfaces by name, so the new
// name enters the zone and the old one leaves it, for whoever has it next.
func TestZoneFollowsRenamedBridge(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	r.awaitZone("default", "virbr0", "libvirt")
	r.rename("virbr0", "away0")
	r.awaitZone("default", "away0", "libvirt")
	r.until("the old name leaves the zone", func() bool { return r.zoneOf("virbr0") == "" })
	r.AwaitState("default", "active")
	r.KillDaemon()
	r.StartDaemon()
	r.awaitZone("default", "away0", "libvirt")
	r.Bridge("virbr0", "10.9.0.1/24")
	r.must(r.Manager("Reapply"))
	if zone := r.zoneOf("virbr0"); zone != "" {
		t.Errorf("another bridge with the old name is in zone %s", zone)
	}
	r.rename("virbr0", "other0")
	r.rename("away0", "virbr0")
	r.awaitZone("default", "virbr0", "libvirt")
	r.until("the new name leaves the zone", func() bool { return r.zoneOf("away0") == "" })
}
