package tests

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// talk is a TCP connection between two nodes that can be asked whether it
// still works.
type talk struct {
	conn net.Conn
	line *bufio.Reader
	Seen netip.AddrPort // the source that the server saw
}

// newTalk connects from one node to an echo server on another.
func newTalk(t *testing.T, from, to host.Node, at string) *talk {
	t.Helper()
	seen := make(chan net.Addr, 1)
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go echo(listener, seen)
	k := &talk{}
	err = from.Do(func() (err error) {
		k.conn, err = net.DialTimeout("tcp", at, host.Patient(3*time.Second))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.conn.Close() })
	k.line = bufio.NewReader(k.conn)
	k.Seen = (<-seen).(*net.TCPAddr).AddrPort()
	return k
}

// echo answers the one connection that comes.
func echo(l net.Listener, seen chan<- net.Addr) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	seen <- conn.RemoteAddr()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if _, err := fmt.Fprintln(conn, lines.Text()); err != nil {
			return
		}
	}
}

// works says whether a line goes there and back.
func (k *talk) works(t *testing.T, when string) {
	t.Helper()
	want := fmt.Sprintf("%s %d\n", when, time.Now().UnixNano())
	_ = k.conn.SetDeadline(time.Now().Add(host.Patient(10 * time.Second)))
	if _, err := fmt.Fprint(k.conn, want); err != nil {
		t.Fatalf("%s: the established connection broke: %v", when, err)
	}
	if got, err := k.line.ReadString('\n'); err != nil || got != want {
		t.Fatalf("%s: the established connection broke: %q, %v", when, got, err)
	}
}

const natNet = "192.168.122.1/24"

// natRig is a NAT network "default" on virbr0 with a guest, and the internet.
func natRig(t *testing.T) (r *rig, guest, internet *host.Peer) {
	t.Helper()
	r = startedRig(t)
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
}

// guarded checks what must hold at any instant: nobody comes in, nobody forges.
func guarded(t *testing.T, guest, internet *host.Peer, when string) {
	t.Helper()
	in := host.Try(internet, guest, host.Probe{Proto: host.UDP, To: netip.MustParseAddrPort("192.168.122.10:0")})
	if in.Seen.IsValid() || in.Err != nil {
		t.Errorf("%s: a new connection from outside: %v", when, in)
	}
}

// natted checks that the guest gets out under the host's address.
func natted(t *testing.T, guest, internet *host.Peer, when string) {
	t.Helper()
	out := host.Try(guest, internet, host.Probe{Proto: host.TCP, To: netip.MustParseAddrPort("203.0.113.1:0")})
	if !out.Reached || out.Seen.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("%s: from guest to internet: %v", when, out)
	}
}

func TestWaitingNetworkBecomesActive(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	if state, reason := r.State("default"); state != "waiting" || !strings.Contains(reason, "virbr0") {
		t.Errorf("without its bridge the network is %s: %s", state, reason)
	}
	if !strings.Contains(r.Table(), "net_default_from") {
		t.Error("a waiting network has no rules")
	}
	var took []time.Duration
	for range 9 {
		r.Bridge("virbr0", natNet)
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

// TestRulesHoldByNameWithoutTheService: a bridge made anew while the service is
// down is governed from its first packet.
func TestRulesHoldByNameWithoutTheService(t *testing.T) {
	t.Parallel()
	r, _, internet := natRig(t)
	r.KillDaemon()
	r.Must("ip", "link", "del", "virbr0")
	r.Bridge("virbr0", natNet)
	r.Must("ip", "link", "set", "v-guest", "master", "virbr0")
	guest := r.Guest("virbr0", "other", "192.168.122.10/24")
	guarded(t, guest, internet, "bridge made anew, service down")
	natted(t, guest, internet, "bridge made anew, service down")
	r.StartDaemon()
	r.AwaitState("default", "active")
	guarded(t, guest, internet, "service back")
	natted(t, guest, internet, "service back")
}

func TestBridgeMadeAnewKeepsConnections(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	k := newTalk(t, guest, internet, "203.0.113.1:7000")
	if k.Seen.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("the server saw %v", k.Seen)
	}
	before := r.Property("default", "BridgeIndex")
	for round := range 3 {
		r.Must("ip", "link", "del", "virbr0")
		r.Bridge("virbr0", natNet)
		r.Must("ip", "link", "set", "v-guest", "master", "virbr0")
		when := fmt.Sprintf("bridge made anew, round %d", round)
		k.works(t, when)
		guarded(t, guest, internet, when)
		r.AwaitState("default", "active")
		k.works(t, when+", active")
		natted(t, guest, internet, when)
	}
	if after := r.Property("default", "BridgeIndex"); after == before {
		t.Errorf("the index is still %v", after)
	}
	if elements := strings.Count(r.Table(), "comment \"network default\""); elements != 8 {
		t.Errorf("%d elements are in the maps, not 8: a dead index stayed\n%s", elements, r.Table())
	}
}

func TestRenamedBridgeKeepsItsRules(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	k := newTalk(t, guest, internet, "203.0.113.1:7000")
	r.rename("virbr0", "away0")
	r.awaitFinding("bridge-renamed", "away0")
	if state, _ := r.State("default"); state != "active" {
		t.Errorf("with its bridge renamed the network is %s", state)
	}
	for _, name := range []string{"virbr0", "away0"} {
		var path godbus.ObjectPath
		r.must(r.Manager("GetNetworkByBridge", name), &path)
		if path != dbus.NetworkPath("default") {
			t.Errorf("by bridge %s: %s", name, path)
		}
	}
	if bridge := r.Property("default", "Bridge"); bridge != "virbr0" {
		t.Errorf("its Bridge became %s", bridge)
	}
	k.works(t, "renamed")
	guarded(t, guest, internet, "renamed")
	natted(t, guest, internet, "renamed")
	r.rename("away0", "virbr0")
	r.awaitNoFinding("bridge-renamed")
	k.works(t, "renamed back")
	guarded(t, guest, internet, "renamed back")
	natted(t, guest, internet, "renamed back")
}

// rename renames an interface. Before Linux 6.2 it has to be down for that.
func (r *rig) rename(from, to string) {
	r.t.Helper()
	out, err := r.Run("ip", "link", "set", from, "name", to)
	if err == nil {
		return
	}
	if !strings.Contains(out, "busy") {
		r.t.Fatal(err)
	}
	r.Must("ip", "link", "set", from, "down")
	r.Must("ip", "link", "set", from, "name", to)
	r.Must("ip", "link", "set", to, "up")
}

func TestOnlyBridgesAreGoverned(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.wantError(r.AddXML(netXML("default", "virbr0", "nat", natNet)), "InvalidArgument")
	r.Must("ip", "link", "del", "virbr0")
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.AwaitState("default", "degraded")
	r.awaitFinding("not-a-bridge", "virbr0")
	if table := r.Table(); !strings.Contains(table, "net_default") {
		t.Errorf("an interface that took the name took the rules away:\n%s", table)
	}
	r.Must("ip", "link", "del", "virbr0")
	r.AwaitState("default", "waiting")
	r.Bridge("virbr0", natNet)
	r.AwaitState("default", "active")

	r.Internet() // wan0 has the default route now
	r.Must("ip", "link", "add", "br0", "type", "bridge")
	r.Must("ip", "link", "set", "br0", "up")
	r.Must("ip", "route", "replace", "default", "dev", "br0")
	r.wantError(r.AddXML(netXML("host", "br0", "nat", "192.168.50.1/24")), "InvalidArgument")
}

// TestHostIsSeenAsItIs: a call is held against what its caller did to the host
// just before. Many routes make the service slow to learn of a new default one.
func TestHostIsSeenAsItIs(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Must("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "other0")
	r.Must("ip", "link", "set", "wan0", "up")
	r.Bridge("virbr0", natNet)
	var routes strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&routes, "route add 10.%d.%d.0/24 dev wan0\n", i>>8, i&0xff)
	}
	r.write("/tmp/routes", routes.String())
	r.Must("ip", "-batch", "/tmp/routes")
	for range 5 {
		r.Must("ip", "route", "add", "default", "dev", "virbr0")
		r.wantError(r.AddXML(netXML("default", "virbr0", "nat", natNet)), "InvalidArgument")
		r.Must("ip", "route", "del", "default")
		r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
		r.Must("ip", "address", "add", "172.16.0.1/24", "dev", "wan0")
		r.wantError(r.Network("default", "Update", opts("Addresses", []string{"172.16.0.2/24"}), opts()), "SubnetOverlap")
		r.Must("ip", "address", "del", "172.16.0.1/24", "dev", "wan0")
		r.must(r.Manager("RemoveNetwork", "default", opts()))
	}
}

// TestBridgeRenamedToAnothersName: a bridge keeps its network, also under a name
// that another network says; that one has no bridge then.
func TestBridgeRenamedToAnothersName(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	r.must(r.AddXML(netXML("other", "virbr1", "isolated", "10.1.0.1/24")))
	natted(t, guest, internet, "before")
	r.rename("virbr0", "virbr1")
	r.awaitFinding("bridge-taken", "virbr1")
	r.AwaitState("default", "active")
	r.AwaitState("other", "waiting")
	natted(t, guest, internet, "renamed to another's name")
	guarded(t, guest, internet, "renamed to another's name")
	var repairs uint32
	r.must(r.Manager("Reapply"), &repairs)
	if repairs != 0 {
		t.Errorf("%d networks needed a repair", repairs)
	}
	for range 2 {
		r.KillDaemon()
		r.StartDaemon()
		r.AwaitState("default", "active")
		r.AwaitState("other", "waiting")
		natted(t, guest, internet, "killed and started")
	}
	r.rename("virbr1", "virbr0")
	r.awaitNoFinding("bridge-taken")
	r.AwaitState("default", "active")
	natted(t, guest, internet, "renamed back")
	r.Bridge("virbr1", "10.1.0.1/24")
	r.AwaitState("other", "active")

	// A name that nobody has yet: the bridge stays with its network, and a new
	// network cannot take it.
	r.rename("virbr0", "away0")
	r.awaitFinding("bridge-renamed", "away0")
	r.wantError(r.AddXML(netXML("third", "away0", "nat", "10.3.0.1/24")), "BridgeInUse")
	natted(t, guest, internet, "renamed away")
	file := "/etc/virtfirewalld/networks/third.xml"
	if err := r.WriteFile(file, []byte(netXML("third", "away0", "nat", "10.3.0.1/24")), 0o644); err != nil {
		t.Fatal(err)
	}
	r.wantError(r.Manager("Reload"), "BridgeInUse")
	natted(t, guest, internet, "after a reload that failed")
	r.must(r.Manager("RemoveNetwork", "default", opts()))
	r.must(r.Manager("Reload"))
	r.AwaitState("third", "active")
}
