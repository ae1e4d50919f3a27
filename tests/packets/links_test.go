package packets

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

func TestWaitingNetworkBecomesActive(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	if state, reason := r.State("default"); state != "waiting" || !strings.Contains(reason, "virbr0") {
		t.Errorf("without its bridge the network is %s: %s", state, reason)
	}
	if !rig.InTable(r.Table(), "default") {
		t.Error("a waiting network has no rules")
	}
	var took []time.Duration
	for range 9 {
		r.Bridge("virbr0", rig.NatNet)
		took = append(took, r.AwaitState("default", "active"))
		if index := r.Property("default", "BridgeIndex").(int32); index == 0 {
			t.Error("an active network's bridge has no index")
		}
		r.Must("ip", "link", "del", "virbr0")
		r.AwaitState("default", "waiting")
	}
	slices.Sort(took)
	t.Logf("from the bridge to active: median %v, all %v", took[len(took)/2], took)
	if took[len(took)/2] > 100*time.Millisecond {
		t.Errorf("it took %v from the bridge to active, more than 100 ms", took[len(took)/2])
	}
}

// TestRulesHoldByNameWithoutTheService: a bridge made again while the service is
// down is governed from its first packet.
func TestRulesHoldByNameWithoutTheService(t *testing.T) {
	t.Parallel()
	r, _, internet := rig.WithNAT(t)
	r.KillDaemon()
	r.Must("ip", "link", "del", "virbr0")
	r.Bridge("virbr0", rig.NatNet)
	r.Must("ip", "link", "set", "v-guest", "master", "virbr0")
	guest := r.Guest("virbr0", "other", "192.168.122.10/24")
	rig.Guarded(t, guest, internet, "bridge made anew, service down")
	rig.Natted(t, guest, internet, "bridge made anew, service down")
	r.StartDaemon()
	r.AwaitState("default", "active")
	rig.Guarded(t, guest, internet, "service back")
	rig.Natted(t, guest, internet, "service back")
}

func TestBridgeMadeAnewKeepsConnections(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	conn := rig.Connect(t, guest, internet, "203.0.113.1:7000")
	if conn.Seen.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("the server saw %v", conn.Seen)
	}
	before, elementsBefore := r.Property("default", "BridgeIndex"), strings.Count(r.Table(), "comment \"network default\"")
	for round := range 3 {
		r.Must("ip", "link", "del", "virbr0")
		r.Bridge("virbr0", rig.NatNet)
		r.Must("ip", "link", "set", "v-guest", "master", "virbr0")
		when := fmt.Sprintf("bridge made anew, round %d", round)
		conn.Works(t, when)
		rig.Guarded(t, guest, internet, when)
		r.AwaitState("default", "active")
		conn.Works(t, when+", active")
		rig.Natted(t, guest, internet, when)
	}
	if after := r.Property("default", "BridgeIndex"); after == before {
		t.Errorf("the index is still %v", after)
	}
	// Elements by index and by name, of the same sets.
	if elements := strings.Count(r.Table(), "comment \"network default\""); elements != elementsBefore {
		t.Errorf("%d elements are in the sets, not %d: a dead index stayed\n%s", elements, elementsBefore, r.Table())
	}
}

func TestRenamedBridgeKeepsItsRules(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	conn := rig.Connect(t, guest, internet, "203.0.113.1:7000")
	rename(r, "virbr0", "away0")
	r.Findings.Await("bridge-renamed", "away0")
	if state, _ := r.State("default"); state != "active" {
		t.Errorf("with its bridge renamed the network is %s", state)
	}
	for _, name := range []string{"virbr0", "away0"} {
		var path godbus.ObjectPath
		r.OK(r.Manager("GetNetworkByBridge", name), &path)
		if path != dbus.NetworkPath("default") {
			t.Errorf("by bridge %s: %s", name, path)
		}
	}
	if bridge := r.Property("default", "Bridge"); bridge != "virbr0" {
		t.Errorf("its Bridge became %s", bridge)
	}
	conn.Works(t, "renamed")
	rig.Guarded(t, guest, internet, "renamed")
	rig.Natted(t, guest, internet, "renamed")
	rename(r, "away0", "virbr0")
	r.Findings.AwaitNone("bridge-renamed")
	conn.Works(t, "renamed back")
	rig.Guarded(t, guest, internet, "renamed back")
	rig.Natted(t, guest, internet, "renamed back")
}

// rename renames an interface. Before Linux 6.2 it has to be down for that.
func rename(r *rig.Rig, from, to string) {
	r.T.Helper()
	out, err := r.Run("ip", "link", "set", from, "name", to)
	if err == nil {
		return
	}
	if !strings.Contains(out, "busy") {
		r.T.Fatal(err)
	}
	r.Must("ip", "link", "set", from, "down")
	r.Must("ip", "link", "set", from, "name", to)
	r.Must("ip", "link", "set", to, "up")
}

func TestOnlyBridgesAreGoverned(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.WantError(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)), "InvalidArgument")
	r.Must("ip", "link", "del", "virbr0")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.AwaitState("default", "degraded")
	r.Findings.Await("not-a-bridge", "virbr0")
	if table := r.Table(); !rig.InTable(table, "default") {
		t.Errorf("an interface that took the name took the rules away:\n%s", table)
	}
	r.Must("ip", "link", "del", "virbr0")
	r.AwaitState("default", "waiting")
	r.Bridge("virbr0", rig.NatNet)
	r.AwaitState("default", "active")

	r.Internet() // wan0 has the default route now
	r.Must("ip", "link", "add", "br0", "type", "bridge")
	r.Must("ip", "link", "set", "br0", "up")
	r.Must("ip", "route", "replace", "default", "dev", "br0")
	r.WantError(r.AddXML(rig.NetXML("host", "br0", "nat", "192.168.50.1/24")), "InvalidArgument")
}

// TestHostIsSeenAsItIs: a call is held against what its caller did to the host
// just before. Many routes make the service slow to learn of a new default one.
func TestHostIsSeenAsItIs(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Must("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "other0")
	r.Must("ip", "link", "set", "wan0", "up")
	r.Bridge("virbr0", rig.NatNet)
	var routes strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&routes, "route add 10.%d.%d.0/24 dev wan0\n", i>>8, i&0xff)
	}
	r.Write("/tmp/routes", routes.String())
	r.Must("ip", "-batch", "/tmp/routes")
	for range 5 {
		r.Must("ip", "route", "add", "default", "dev", "virbr0")
		r.WantError(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)), "InvalidArgument")
		r.Must("ip", "route", "del", "default")
		r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
		r.Must("ip", "address", "add", "172.16.0.1/24", "dev", "wan0")
		r.WantError(r.Network("default", "Update", rig.Opts("Addresses", []string{"172.16.0.2/24"}), rig.Opts()), "SubnetOverlap")
		r.Must("ip", "address", "del", "172.16.0.1/24", "dev", "wan0")
		r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	}
}

// TestBridgeRenamedToAnothersName: a bridge keeps its network, even under a name
// that another network is configured with; that one has no bridge then.
func TestBridgeRenamedToAnothersName(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	r.OK(r.AddXML(rig.NetXML("other", "virbr1", "isolated", "10.1.0.1/24")))
	rig.Natted(t, guest, internet, "before")
	rename(r, "virbr0", "virbr1")
	r.Findings.Await("bridge-taken", "virbr1")
	r.AwaitState("default", "active")
	r.AwaitState("other", "waiting")
	rig.Natted(t, guest, internet, "renamed to another's name")
	rig.Guarded(t, guest, internet, "renamed to another's name")
	var repairs uint32
	r.OK(r.Manager("Reapply"), &repairs)
	if repairs != 0 {
		t.Errorf("%d networks needed a repair", repairs)
	}
	for range 2 {
		r.KillDaemon()
		r.StartDaemon()
		r.AwaitState("default", "active")
		r.AwaitState("other", "waiting")
		rig.Natted(t, guest, internet, "killed and started")
	}
	rename(r, "virbr1", "virbr0")
	r.Findings.AwaitNone("bridge-taken")
	r.AwaitState("default", "active")
	rig.Natted(t, guest, internet, "renamed back")
	r.Bridge("virbr1", "10.1.0.1/24")
	r.AwaitState("other", "active")

	// A name that is still free: the bridge stays with its network, and a new
	// network cannot take it.
	rename(r, "virbr0", "away0")
	r.Findings.Await("bridge-renamed", "away0")
	r.WantError(r.AddXML(rig.NetXML("third", "away0", "nat", "10.3.0.1/24")), "BridgeInUse")
	rig.Natted(t, guest, internet, "renamed away")
	file := "/etc/virtfirewalld/networks/third.xml"
	r.Write(file, rig.NetXML("third", "away0", "nat", "10.3.0.1/24"))
	r.WantError(r.Manager("Reload"), "BridgeInUse")
	rig.Natted(t, guest, internet, "after a reload that failed")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	r.OK(r.Manager("Reload"))
	r.AwaitState("third", "active")
}
