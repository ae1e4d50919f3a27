// Package backends holds the tests of both backends: moving between them, and
// mending what others do to their rules.
package backends

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

func TestSwitchMovesEverything(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	r.Announce(rig.Uncovered)
	before := r.Table()
	rig.Natted(t, guest, internet, "nftables")
	counted := r.Counters("default")
	r.SwitchTo("iptables")
	if r.Table() != "" {
		t.Errorf("the nftables table is still there:\n%s", r.Table())
	}
	if !strings.Contains(rig.Chains(r.Host), "-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT") {
		t.Errorf("the iptables rules are not there:\n%s", rig.Chains(r.Host))
	}
	if got := r.Property("default", "Backend"); got != "iptables" {
		t.Errorf("the network's backend is %v", got)
	}
	rig.Natted(t, guest, internet, "iptables")
	rig.Guarded(t, guest, internet, "iptables")
	var text string
	r.OK(r.Network("default", "GetRuleset"), &text)
	if !strings.Contains(text, "LIBVIRT_PRT") {
		t.Errorf("GetRuleset says:\n%s", text)
	}
	if now := r.Counters("default"); now["FromGuestPackets"] <= counted["FromGuestPackets"] {
		t.Errorf("counters were %v and are %v", counted, now)
	}
	counted = r.Counters("default")
	r.SwitchTo("nftables")
	if left := rig.Chains(r.Host); left != "" {
		t.Errorf("iptables rules are still there:\n%s", left)
	}
	// What was counted before and with iptables is counted as earlier.
	rig.Same(t, "the table that came back", plainCounters(before), plainCounters(earlierCounters.ReplaceAllString(r.Table(), "")))
	rig.Natted(t, guest, internet, "nftables again")
	if now := r.Counters("default"); now["FromGuestPackets"] <= counted["FromGuestPackets"] {
		t.Errorf("counters were %v and are %v", counted, now)
	}
}

// plainCounters returns a listing without what was counted.
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
	m := rig.NewMany(t, 3)
	m.Announce(rig.Uncovered)
	m.Store(1024)
	m.StartDaemon()
	m.Bridge("virbr9", "10.99.0.1/24")
	m.OK(m.AddXML(rig.NetXML("isolated", "virbr9", "isolated", "10.99.0.1/24")))
	isolated := m.Guest("virbr9", "isolated", "10.99.0.10/24")
	conn := rig.Connect(t, m.Sender, m.Outside, "203.0.113.1:7000")
	load := m.Begin()
	locked, err := host.StartStream(isolated, m.Outside, host.StreamConfig{To: netip.MustParseAddrPort("203.0.113.1:7777"), Rate: 200})
	rig.Must(t, err)
	for round := range 50 {
		m.SwitchTo("iptables")
		m.Await(load, 20)
		m.SwitchTo("nftables")
		m.Await(load, 20)
		conn.Works(t, fmt.Sprintf("round %d", round))
		if r := host.Try(m.Sender, m.Outside, host.Probe{Proto: host.ICMP, To: netip.MustParseAddrPort("203.0.113.1:0"), Timeout: 5 * time.Second}); !r.Reached {
			t.Errorf("round %d: ping: %v", round, r)
		}
	}
	if r := locked.Stop(); r.Received > 0 || r.Sent < 100 {
		t.Errorf("from the isolated network: %v", r)
	}
	r := load.Stop()
	t.Log(r)
	for _, wrong := range r.Wrong(rig.WANAddress) {
		t.Error(wrong)
	}
}

// TestWhatIPTablesDoesNotCover: an isolated network reaches a routed one with
// libvirt's own rules (D1), until the networks are back in nftables.
func TestWhatIPTablesDoesNotCover(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Announce(rig.Uncovered)
	nodes := rig.BuildVillage(r.Host)
	for _, v := range rig.Village {
		r.OK(r.AddXML(v.XML))
	}
	try := func(when string, passes bool) {
		t.Helper()
		p := host.Probe{Proto: host.UDP, To: netip.AddrPortFrom(rig.Address(t, nodes["route"], false), 0)}
		if got := rig.TryPatiently(nodes["isolated"], nodes["route"], p); got.Seen.IsValid() != passes {
			t.Errorf("%s: from an isolated network to a routed one: %v", when, got)
		}
	}
	try("nftables", false)
	r.SwitchTo("iptables")
	try("iptables", true)
	if !strings.Contains(r.Daemon.Log(), rig.Uncovered) {
		t.Error("the log does not say what iptables does not cover")
	}
	r.SwitchTo("nftables")
	try("nftables again", false)
}

// TestBackendByConfiguration is the Fedora change's way: a line in libvirt's
// file and a restart, and its "Reverting", by a reload.
func TestBackendByConfiguration(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce(rig.Uncovered, "took out what")
	r.Bridge("virbr0", rig.NatNet)
	libvirt := func(text string) {
		r.Write("/etc/libvirt/network.conf", text)
	}
	libvirt("# comment\nfirewall_backend = \"iptables\"\n")
	r.StartDaemon()
	if source := r.ManagerProperty("BackendSource"); !strings.Contains(source, "/etc/libvirt/network.conf, line 2") {
		t.Errorf("the backend comes from: %s", source)
	}
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	if r.Table() != "" || !strings.Contains(rig.Chains(r.Host), "LIBVIRT_FWO") {
		t.Errorf("the rules are not in iptables:\n%s%s", r.Table(), rig.Chains(r.Host))
	}
	libvirt("firewall_backend = \"nftables\"\n")
	r.OK(r.Manager("Reload"))
	if r.Table() == "" || rig.Chains(r.Host) != "" {
		t.Errorf("the rules are not in nftables alone:\n%s", rig.Chains(r.Host))
	}
	libvirt("firewall_backend = \"iptables\"\n")
	r.StopDaemon()
	r.StartDaemon()
	if r.Table() != "" || !strings.Contains(rig.Chains(r.Host), "LIBVIRT_FWO") {
		t.Errorf("after a restart the rules are not in iptables alone:\n%s%s", r.Table(), rig.Chains(r.Host))
	}
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	rig.Natted(t, guest, internet, "iptables")
	rig.Guarded(t, guest, internet, "iptables")
	r.KillDaemon()
	libvirt("")
	r.StartDaemon()
	if r.Table() == "" || rig.Chains(r.Host) != "" {
		t.Errorf("after kill -9 and a start the rules are not in nftables alone:\n%s", rig.Chains(r.Host))
	}
	libvirt("firewall_backend = \"netfilter\"\n")
	call := r.Manager("Reload")
	r.WantError(call, "InvalidArgument")
	if call.Err != nil && !strings.Contains(call.Err.Error(), "/etc/libvirt/network.conf, line 1") {
		t.Errorf("the error does not name the line: %v", call.Err)
	}
}

// TestBackendThatDoesNotWork: a missing configured backend is reported as an
// error, and nothing moves.
func TestBackendThatDoesNotWork(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	r.Announce("DHCP replies may carry bad checksums") // iptables may go before it was asked to help
	r.Must("sh", "-c", "for f in iptables ip6tables iptables-restore ip6tables-restore; do rm -f /usr/sbin/$f; done")
	before := r.Table()
	call := r.Manager("SetBackend", "iptables", rig.Opts())
	r.WantError(call, "BackendUnavailable")
	rig.Same(t, "the table after a failed switch", plainCounters(before), plainCounters(r.Table()))
	rig.Same(t, "the backend after a failed switch", "nftables", r.ManagerProperty("Backend"))
	rig.Natted(t, guest, internet, "after a failed switch")
}

// TestStartWithABackendThatDoesNotWork ends with the reason, and leaves the
// counters of the last run as they are.
func TestStartWithABackendThatDoesNotWork(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	rig.Natted(t, guest, internet, "before")
	r.AwaitSaved()
	r.StopDaemon()
	saved := r.File(rig.RuntimeDir + "/counters.json")
	r.Must("sh", "-c", "for f in iptables ip6tables iptables-restore ip6tables-restore; do rm -f /usr/sbin/$f; done")
	r.Write(rig.ConfigFile, "firewall_backend = iptables\n")
	failed := r.Start("virtfirewalld", "/usr/sbin/virtfirewalld")
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(rig.CallTimeout))
	defer cancel()
	if err := failed.Wait(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
	if out := failed.Log(); !strings.Contains(out, "virtfirewalld: starting: ") || strings.Contains(out, "panic") {
		t.Errorf("it ended with:\n%s", out)
	}
	if now := r.File(rig.RuntimeDir + "/counters.json"); now != saved {
		t.Errorf("the counters were %s, and are %s", saved, now)
	}
	rig.Natted(t, guest, internet, "after a failed start")
	rig.Guarded(t, guest, internet, "after a failed start")
}

func TestSetBackendPersistent(t *testing.T) {
	t.Parallel()
	r, _, _ := rig.WithNAT(t)
	r.Announce(rig.Uncovered)
	r.OK(r.Manager("SetBackend", "iptables", rig.Opts("Persistent", true)))
	if source := r.ManagerProperty("BackendSource"); !strings.Contains(source, "virtfirewalld.conf, line 1") {
		t.Errorf("the backend comes from: %s", source)
	}
	r.OK(r.Manager("Reload"))
	if got := r.ManagerProperty("Backend"); got != "iptables" {
		t.Errorf("after a reload the backend is %s", got)
	}
	r.OK(r.Manager("SetBackend", "auto", rig.Opts("Persistent", true)))
	if got := r.ManagerProperty("Backend"); got != "nftables" {
		t.Errorf("auto is %s", got)
	}
	r.WantError(r.Manager("SetBackend", "pf", rig.Opts()), "InvalidArgument")
}

// TestLibvirtsLeftovers: what libvirt's nftables backend left for a network is
// removed once the service has the network; other networks' rules stay.
func TestLibvirtsLeftovers(t *testing.T) {
	t.Parallel()
	r := rig.Started(t, host.WithForwarding())
	rig.BuildVillage(r.Host)
	if out, err := r.RunInput(rig.LibvirtRules(), "nft", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
	r.OK(r.AddXML(rig.Village[0].XML))
	list := func() string { return r.Must("nft", "list", "ruleset") }
	awaitTrue(t, "libvirt's rules for virbr1 go", func() bool {
		ip := r.Must("nft", "list", "table", "ip", "libvirt_network") + r.Must("nft", "list", "table", "ip6", "libvirt_network")
		return !strings.Contains(ip, "virbr1\"") && !strings.Contains(ip, "10.1.0.0/24")
	})
	if !strings.Contains(list(), "10.5.0.0/24") || !strings.Contains(list(), "virbr7") {
		t.Errorf("other networks' rules went too:\n%s", list())
	}
	for _, v := range rig.Village[1:] {
		r.OK(r.AddXML(v.XML))
	}
	awaitTrue(t, "libvirt's tables go", func() bool {
		return !strings.Contains(list(), "table ip libvirt_network") && !strings.Contains(list(), "table ip6 libvirt_network")
	})
}

// awaitTrue waits until something holds.
func awaitTrue(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !rig.Await(10*time.Second, holds) {
		t.Fatalf("within 10 s it did not happen that %s", what)
	}
}

// earlierCounters matches the counters of what elements and rules had counted.
var earlierCounters = regexp.MustCompile(`(?m)^\tcounter \S+_earlier \{\n.*\n\t\}\n\n`)
