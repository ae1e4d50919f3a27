package tests

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// uncovered is what the service says in its log when iptables takes over.
const uncovered = "iptables holds libvirt's own rules"

func (r *rig) managerProperty(name string) string {
	r.t.Helper()
	v, err := r.bus.Object(managerName, managerPath).GetProperty(managerName + "." + name)
	if err != nil {
		r.t.Fatal(err)
	}
	s, _ := v.Value().(string)
	return s
}

func (r *rig) switchTo(backend string) {
	r.t.Helper()
	r.must(r.Manager("SetBackend", backend, opts()))
	if got := r.managerProperty("Backend"); got != backend {
		r.t.Fatalf("the backend is %s, want %s", got, backend)
	}
}

// chains are the lines of iptables-save, both families, that are libvirt's.
func (r *rig) chains() string {
	out := r.Must("sh", "-c", "iptables-save; ip6tables-save")
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, "LIBVIRT_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestSwitchMovesEverything(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	r.Announce(uncovered)
	before := r.Table()
	natted(t, guest, internet, "nftables")
	counted := r.Counters("default")
	r.switchTo("iptables")
	if r.Table() != "" {
		t.Errorf("the nftables table is still there:\n%s", r.Table())
	}
	if !strings.Contains(r.chains(), "-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT") {
		t.Errorf("the iptables rules are not there:\n%s", r.chains())
	}
	if got := r.Property("default", "Backend"); got != "iptables" {
		t.Errorf("the network's backend is %v", got)
	}
	natted(t, guest, internet, "iptables")
	guarded(t, guest, internet, "iptables")
	var text string
	r.must(r.Network("default", "GetRuleset"), &text)
	if !strings.Contains(text, "LIBVIRT_PRT") {
		t.Errorf("GetRuleset says:\n%s", text)
	}
	if now := r.Counters("default"); now["FromGuestPackets"] <= counted["FromGuestPackets"] {
		t.Errorf("counters were %v and are %v", counted, now)
	}
	counted = r.Counters("default")
	r.switchTo("nftables")
	if left := r.chains(); left != "" {
		t.Errorf("iptables rules are still there:\n%s", left)
	}
	if plainCounters(r.Table()) != plainCounters(before) {
		t.Errorf("the table is another:\n%s\nthan before:\n%s", r.Table(), before)
	}
	natted(t, guest, internet, "nftables again")
	if now := r.Counters("default"); now["FromGuestPackets"] <= counted["FromGuestPackets"] {
		t.Errorf("counters were %v and are %v", counted, now)
	}
}

// plainCounters is a listing without what was counted.
func plainCounters(table string) string {
	var b strings.Builder
	for line := range strings.Lines(table) {
		if !strings.Contains(line, "packets ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestSwitchUnderTraffic: established flows and new ones pass, and nothing that
// both backends block, however often the networks move.
func TestSwitchUnderTraffic(t *testing.T) {
	t.Parallel()
	m := newManyNetworks(t, 3)
	m.Announce(uncovered)
	m.store(1024)
	m.StartDaemon()
	m.Bridge("virbr9", "10.99.0.1/24")
	m.must(m.AddXML(netXML("isolated", "virbr9", "isolated", "10.99.0.1/24")))
	isolated := m.Guest("virbr9", "isolated", "10.99.0.10/24")
	k := newTalk(t, m.guest, m.outside, "203.0.113.1:7000")
	load := m.begin()
	locked, err := host.StartStream(isolated, m.outside, host.StreamConfig{To: netip.MustParseAddrPort("203.0.113.1:7777"), Rate: 200})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 50 {
		m.switchTo("iptables")
		m.await(load, 20)
		m.switchTo("nftables")
		m.await(load, 20)
		k.works(t, fmt.Sprintf("round %d", round))
		if r := host.Try(m.guest, m.outside, host.Probe{Proto: host.ICMP, To: netip.MustParseAddrPort("203.0.113.1:0"), Timeout: 5 * time.Second}); !r.Reached {
			t.Errorf("round %d: ping: %v", round, r)
		}
	}
	if r := locked.Stop(); r.Received > 0 || r.Sent < 100 {
		t.Errorf("from the isolated network: %v", r)
	}
	r := load.Stop()
	t.Log(r)
	for _, wrong := range r.Wrong(wanAddress) {
		t.Error(wrong)
	}
}

// TestWhatIPTablesDoesNotCover: an isolated network reaches a routed one with
// libvirt's own rules (D1), until the networks are back in nftables.
func TestWhatIPTablesDoesNotCover(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Announce(uncovered)
	nodes := settle(r.Host)
	for _, v := range village {
		r.must(r.AddXML(v.xml))
	}
	try := func(when string, passes bool) {
		t.Helper()
		p := host.Probe{Proto: host.UDP, To: netip.AddrPortFrom(address(t, nodes["route"], false), 0)}
		if got := patient(nodes["isolated"], nodes["route"], p); got.Seen.IsValid() != passes {
			t.Errorf("%s: from an isolated network to a routed one: %v", when, got)
		}
	}
	try("nftables", false)
	r.switchTo("iptables")
	try("iptables", true)
	if !strings.Contains(r.Daemon.Log(), uncovered) {
		t.Error("the log does not say what iptables does not cover")
	}
	r.switchTo("nftables")
	try("nftables again", false)
}

// TestBackendByConfiguration is the Fedora change's way: a line in libvirt's
// file and a restart, and its "Reverting", by a reload.
func TestBackendByConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce(uncovered, "took out what")
	r.Bridge("virbr0", natNet)
	libvirt := func(text string) {
		if err := r.WriteFile("/etc/libvirt/network.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	libvirt("# comment\nfirewall_backend = \"iptables\"\n")
	r.StartDaemon()
	if source := r.managerProperty("BackendSource"); !strings.Contains(source, "/etc/libvirt/network.conf, line 2") {
		t.Errorf("the backend comes from: %s", source)
	}
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	if r.Table() != "" || !strings.Contains(r.chains(), "LIBVIRT_FWO") {
		t.Errorf("the rules are not in iptables:\n%s%s", r.Table(), r.chains())
	}
	libvirt("firewall_backend = \"nftables\"\n")
	r.must(r.Manager("Reload"))
	if r.Table() == "" || r.chains() != "" {
		t.Errorf("the rules are not in nftables alone:\n%s", r.chains())
	}
	libvirt("firewall_backend = \"iptables\"\n")
	r.StopDaemon()
	r.StartDaemon()
	if r.Table() != "" || !strings.Contains(r.chains(), "LIBVIRT_FWO") {
		t.Errorf("after a restart the rules are not in iptables alone:\n%s%s", r.Table(), r.chains())
	}
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	natted(t, guest, internet, "iptables")
	guarded(t, guest, internet, "iptables")
	r.KillDaemon()
	libvirt("")
	r.StartDaemon()
	if r.Table() == "" || r.chains() != "" {
		t.Errorf("after kill -9 and a start the rules are not in nftables alone:\n%s", r.chains())
	}
	libvirt("firewall_backend = \"netfilter\"\n")
	call := r.Manager("Reload")
	r.wantError(call, "InvalidArgument")
	if call.Err != nil && !strings.Contains(call.Err.Error(), "/etc/libvirt/network.conf, line 1") {
		t.Errorf("the error does not name the line: %v", call.Err)
	}
}

// TestBackendThatDoesNotWork: a configured backend that is missing is an error
// that says so, and nothing moves.
func TestBackendThatDoesNotWork(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	r.Announce("DHCP replies may carry bad checksums") // iptables may go before it was asked to help
	r.Must("sh", "-c", "for f in iptables ip6tables iptables-restore ip6tables-restore; do rm -f /usr/sbin/$f; done")
	before := r.Table()
	call := r.Manager("SetBackend", "iptables", opts())
	r.wantError(call, "BackendUnavailable")
	if plainCounters(r.Table()) != plainCounters(before) || r.managerProperty("Backend") != "nftables" {
		t.Errorf("a failed switch changed something:\n%s", r.Table())
	}
	natted(t, guest, internet, "after a failed switch")
}

// TestStartWithABackendThatDoesNotWork ends with the reason, and leaves the
// counters of the last run as they are.
func TestStartWithABackendThatDoesNotWork(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	natted(t, guest, internet, "before")
	r.awaitSaved()
	r.StopDaemon()
	saved := r.file(runtimeDir + "/counters.json")
	r.Must("sh", "-c", "for f in iptables ip6tables iptables-restore ip6tables-restore; do rm -f /usr/sbin/$f; done")
	r.write(configFile, "firewall_backend = iptables\n")
	failed := r.Start("virtfirewalld", "/usr/sbin/virtfirewalld")
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(callTimeout))
	defer cancel()
	if err := failed.Wait(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
	if out := failed.Log(); !strings.Contains(out, "virtfirewalld: starting: ") || strings.Contains(out, "panic") {
		t.Errorf("it ended with:\n%s", out)
	}
	if now := r.file(runtimeDir + "/counters.json"); now != saved {
		t.Errorf("the counters were %s, and are %s", saved, now)
	}
	natted(t, guest, internet, "after a failed start")
	guarded(t, guest, internet, "after a failed start")
}

func TestSetBackendPersistent(t *testing.T) {
	t.Parallel()
	r, _, _ := natRig(t)
	r.Announce(uncovered)
	r.must(r.Manager("SetBackend", "iptables", opts("Persistent", true)))
	if source := r.managerProperty("BackendSource"); !strings.Contains(source, "virtfirewalld.conf, line 1") {
		t.Errorf("the backend comes from: %s", source)
	}
	r.must(r.Manager("Reload"))
	if got := r.managerProperty("Backend"); got != "iptables" {
		t.Errorf("after a reload the backend is %s", got)
	}
	r.must(r.Manager("SetBackend", "auto", opts("Persistent", true)))
	if got := r.managerProperty("Backend"); got != "nftables" {
		t.Errorf("auto is %s", got)
	}
	r.wantError(r.Manager("SetBackend", "pf", opts()), "InvalidArgument")
}

// TestLibvirtsLeftovers: what libvirt's nftables backend left for a network
// goes when the network is ours; the others' stays.
func TestLibvirtsLeftovers(t *testing.T) {
	t.Parallel()
	r := startedRig(t, host.WithForwarding())
	settle(r.Host)
	if out, err := r.RunInput(libvirtRules(), "nft", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
	r.must(r.AddXML(village[0].xml))
	list := func() string { return r.Must("nft", "list", "ruleset") }
	awaitTrue(t, "libvirt's rules for virbr1 go", func() bool {
		ip := r.Must("nft", "list", "table", "ip", "libvirt_network") + r.Must("nft", "list", "table", "ip6", "libvirt_network")
		return !strings.Contains(ip, "virbr1\"") && !strings.Contains(ip, "10.1.0.0/24")
	})
	if !strings.Contains(list(), "10.5.0.0/24") || !strings.Contains(list(), "virbr7") {
		t.Errorf("other networks' rules went too:\n%s", list())
	}
	for _, v := range village[1:] {
		r.must(r.AddXML(v.xml))
	}
	awaitTrue(t, "libvirt's tables go", func() bool {
		return !strings.Contains(list(), "table ip libvirt_network") && !strings.Contains(list(), "table ip6 libvirt_network")
	})
}

// awaitTrue waits until something holds.
func awaitTrue(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(host.Patient(10 * time.Second)); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within 10 s it did not happen that %s", what)
		}
	}
}
