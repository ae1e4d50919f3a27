package backends

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// chainRig is a host whose rules iptables holds: a translated and an isolated
// network of both families, a guest on each, and rules of the host's own.
type chainRig struct {
	*rig.Rig
	variant               string
	guest, lone, internet *host.Peer
	whole                 string // what is libvirt's in iptables-save, without counters
}

const lone4, lone6 = "10.9.0.1/24", "2001:db8:9::1/64"

func newChainRig(t *testing.T, variant string) *chainRig {
	t.Helper()
	r := &chainRig{Rig: rig.New(t), variant: variant}
	rig.SetIptables(r.Host, variant)
	r.Announce(rig.Uncovered)
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.Bridge("virbr9", lone4, lone6)
	r.both("-A", "INPUT", "-p", "tcp", "--dport", "9999", "-j", "DROP")
	r.Write("/root/before.v4", r.Must("iptables-save"))
	r.Write("/root/before.v6", r.Must("ip6tables-save"))
	r.Write(rig.ConfigFile, "firewall_backend = iptables\n")
	r.StartDaemon()
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat6", rig.NatNet, "2001:db8:122::1/64")))
	r.OK(r.AddXML(rig.NetXML("lone", "virbr9", "isolated", lone4, lone6)))
	r.guest = r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	r.lone = r.Guest("virbr9", "lone", "10.9.0.10/24", "2001:db8:9::10/64")
	r.internet = r.Internet()
	r.whole = rig.Chains(r.Host)
	return r
}

// both runs a command of both families. It waits for the lock of
// iptables-legacy (-w, as everything here that changes rules): the service may
// be repairing what the command before has changed.
func (r *chainRig) both(args ...string) {
	r.T.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		r.Must(append([]string{program, "-w"}, args...)...)
	}
}

// works checks with packets that everything is in force.
func (r *chainRig) works(t *testing.T, when string) {
	t.Helper()
	rig.Natted(t, r.guest, r.internet, when)
	rig.Guarded(t, r.guest, r.internet, when)
	if seen := rig.SeenFrom(t, r.guest, r.internet, host.TCP, rig.Internet6, ""); seen.Addr() != netip.MustParseAddr("2001:db8:ffff::2") {
		t.Errorf("%s: IPv6 leaves with %v", when, seen)
	}
	for _, to := range []string{rig.Internet4, rig.Internet6} {
		p := host.Probe{Proto: host.UDP, To: netip.AddrPortFrom(netip.MustParseAddr(to), 0)}
		if got := host.Try(r.lone, r.internet, p); got.Seen.IsValid() || got.Err != nil {
			t.Errorf("%s: from the isolated network to %s: %v", when, to, got)
		}
	}
}

// awaitHealed waits until these networks were reported as repaired because of
// another program, and all is as it was.
func (r *chainRig) awaitHealed(when string, told func() map[string][]string, networks ...string) {
	r.T.Helper()
	awaitTrue(r.T, when+": they are repaired", func() bool {
		return slices.Equal(slices.Sorted(maps.Keys(told())), networks)
	})
	for name, causes := range told() {
		if !strings.Contains(causes[0], "another program") {
			r.T.Errorf("%s: network %s was repaired because of %q", when, name, causes)
		}
	}
	now := ""
	if !rig.Await(10*time.Second, func() bool { now = rig.Chains(r.Host); return now == r.whole }) {
		r.T.Fatalf("%s: the chains do not become what they were (-before +after):\n%s", when, cmp.Diff(r.whole, now))
	}
	if n := r.Reapply(); n != 0 {
		r.T.Errorf("%s: another %d repairs", when, n)
	}
}

// damage is what another program does to the chains.
type damage struct {
	script   string
	networks []string // that it breaks
	names    string   // of the program, as Repaired has it; where the kernel says it
}

func damages(variant string) []damage {
	all := []string{"default", "lone"}
	out := []damage{
		{"iptables -w -F", all, "iptables"},
		{"ip6tables -w -F", all, "ip6tables"},
		{"for p in iptables ip6tables; do for t in nat mangle filter; do $p -w -t $t -F; $p -w -t $t -X || true; done; done", all, "tables"},
		{"iptables -w -D FORWARD -j LIBVIRT_FWO", all, "iptables"},
		{"ip6tables -w -t nat -D POSTROUTING -j LIBVIRT_PRT", all, "ip6tables"},
		{`printf '*filter\n-D FORWARD -j LIBVIRT_FWI\n-F LIBVIRT_FWI\n-X LIBVIRT_FWI\nCOMMIT\n' | iptables-restore -w --noflush`, all, "iptables"},
		{"iptables -w -D LIBVIRT_FWX -i virbr9 -o virbr9 -j ACCEPT", []string{"lone"}, "iptables"},
		{"ip6tables -w -t nat -F LIBVIRT_PRT", []string{"default"}, "ip6tables"},
		{"iptables-restore -w </root/before.v4", all, "iptables"},
		{"ip6tables-restore -w </root/before.v6", all, "ip6tables"},
		{"iptables -w -I FORWARD -j ACCEPT; iptables -w -D FORWARD -j LIBVIRT_FWO; iptables -w -I FORWARD -j LIBVIRT_FWO; iptables -w -D FORWARD -j ACCEPT", all, "iptables"},
	}
	if variant == "nft" {
		out = append(out,
			damage{"nft flush ruleset", all, "nft"},
			damage{"nft delete table ip filter", all, "nft"},
			damage{"nft delete table ip6 nat", all, "nft"},
		)
	}
	return out
}

// TestChainsHeal whatever another program does to them, by the event and without
// a call, and with the program's name if the kernel reports it.
func TestChainsHeal(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			// Five repairs in ten seconds would be a fight.
			for some := range slices.Chunk(damages(variant), 2) {
				t.Run("", func(t *testing.T) {
					t.Parallel()
					newChainRig(t, variant).heals(t, some)
				})
			}
		})
	}
}

// heals damages the chains, one way after the other.
func (r *chainRig) heals(t *testing.T, damages []damage) {
	t.Helper()
	r.Announce(unwell...) // a script that is slow here may be a short fight
	r.works(t, "before")
	for _, d := range damages {
		told, counted := r.Repairs(), r.Counters("default")
		began := time.Now()
		r.Must("sh", "-c", d.script)
		awaitTrue(t, d.script+": the rules are back", func() bool { return len(told()) == len(d.networks) })
		t.Logf("%s: repaired %v after its begin", d.script, time.Since(began).Round(time.Millisecond))
		r.awaitHealed(d.script, told, d.networks...)
		if cause := told()[d.networks[0]][0]; r.variant == "nft" && !strings.Contains(cause, d.names) {
			t.Errorf("%s: the cause is %q and does not name %s", d.script, cause, d.names)
		}
		r.NotBelow(d.script, "default", counted)
	}
	r.works(t, "after")
	r.AwaitState("default", "active")
}

// TestHostsOwnRulesAreLeft as they are when the chains are restored.
func TestHostsOwnRulesAreLeft(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := newChainRig(t, variant)
			told := r.Repairs()
			r.Must("sh", "-c", `for p in iptables ip6tables; do printf '*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n:MINE -\n'`+
				`'-A FORWARD -j MINE\n-A MINE -p tcp --dport 22 -j ACCEPT\nCOMMIT\n' | $p-restore -w; done`)
			awaitTrue(t, "the rules are back", func() bool { return len(told()) == 2 && rig.Chains(r.Host) == r.whole })
			for _, program := range []string{"iptables", "ip6tables"} {
				forward := r.Must(program, "-S", "FORWARD")
				if !strings.HasPrefix(forward, "-P FORWARD DROP\n") || !strings.HasSuffix(strings.TrimSpace(forward), "-A FORWARD -j MINE") {
					t.Errorf("%s has FORWARD as\n%s", program, forward)
				}
				if mine := r.Must(program, "-S", "MINE"); mine != "-N MINE\n-A MINE -p tcp -m tcp --dport 22 -j ACCEPT\n" {
					t.Errorf("%s has MINE as\n%s", program, mine)
				}
			}
			r.works(t, "with a drop policy")
		})
	}
}

// TestLoneGuestsAreOpenShortly: until the rules are back nothing holds an
// isolated guest, so this is how long it takes, measured with packets.
func TestLoneGuestsAreOpenShortly(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := newChainRig(t, variant)
			const rate = 200
			flow, err := host.StartStream(r.lone, r.internet, host.StreamConfig{To: netip.MustParseAddrPort(rig.Internet4 + ":7777"), Rate: rate})
			rig.Must(t, err)
			told := r.Repairs()
			r.Must("iptables", "-w", "-F")
			r.awaitHealed("a flush", told, "default", "lone")
			report := flow.Stop()
			t.Logf("open for about %v: %v", time.Duration(report.Received)*time.Second/rate, report)
			r.works(t, "after a flush under traffic")
		})
	}
}

// TestChainsAreFollowedAfterASwitch: with the nftables backend changes in
// iptables are ignored, and after a switch they are not.
func TestChainsAreFollowedAfterASwitch(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := newChainRig(t, variant)
			r.SwitchTo("nftables")
			r.Must("iptables", "-w", "-F")
			r.SwitchTo("iptables")
			r.awaitWatch(t)
			told := r.Repairs()
			r.both("-F")
			r.awaitHealed("a flush after a switch", told, "default", "lone")
		})
	}
}

// awaitWatch waits until changes of the chains are seen: the watch begins at
// once after a switch, and not within its call.
func (r *chainRig) awaitWatch(t *testing.T) {
	t.Helper()
	awaitTrue(t, "the watch is there", func() bool {
		told := r.Repairs()
		r.Must("iptables", "-w", "-D", "LIBVIRT_FWX", "-i", "virbr9", "-o", "virbr9", "-j", "ACCEPT")
		for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if len(told()) > 0 {
				return true
			}
		}
		r.Reapply()
		return false
	})
}

// TestChainsThatIPTablesCannotRead: nft added something to the table that
// iptables does not know. State reports that the rules are unknown, and recovers
// by itself when that is gone.
func TestChainsThatIPTablesCannotRead(t *testing.T) {
	t.Parallel()
	r := newChainRig(t, "nft")
	r.Announce("putting rules back", "a network is degraded")
	r.Must("nft", "add rule ip filter FORWARD ct mark 5 accept")
	r.AwaitState("default", "degraded")
	_, reason := r.State("default")
	if code := r.Property("default", "StateCode"); code != "rules-unreadable" || !strings.Contains(reason, "reapply") {
		t.Errorf("State is degraded with %v: %s", code, reason)
	}
	handle := regexp.MustCompile(`ct mark 0x00000005 accept # handle (\d+)`).FindStringSubmatch(r.Must("nft", "-a", "list", "chain", "ip", "filter", "FORWARD"))
	if handle == nil {
		t.Fatal("nft does not list the rule")
	}
	r.Must("nft", "delete", "rule", "ip", "filter", "FORWARD", "handle", handle[1])
	r.AwaitState("default", "active")
	r.works(t, "after that")
}
