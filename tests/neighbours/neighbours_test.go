// Package neighbours checks what the service says, with packets, on hosts where another
// tool filters too.
package neighbours

import (
	"net/netip"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

const document = `<network><name>default</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='virbr0'/>
<ip address='192.168.122.1' prefix='24'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
<ip family='ipv6' address='2001:db8:122::1' prefix='64'/></network>`

// beside is a host with a network and another tool.
type beside struct {
	*rig.Rig
	guest, internet *host.Peer
}

// newBeside returns a host without a network.
func newBeside(t *testing.T, variant string) *beside {
	t.Helper()
	r := rig.New(t)
	rig.SetIptables(r.Host, variant)
	r.Announce("state_code=foreign-drop")
	r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
	return &beside{r, r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()}
}

// start starts the service, with the network.
func (b *beside) start() {
	b.T.Helper()
	b.StartDaemon()
	b.OK(b.AddXML(document))
}

// reaches returns what of the network's entitled traffic works, as packets tell.
func (b *beside) reaches() (works []string) {
	for name, p := range map[string]host.Probe{
		"outside":     {Proto: host.TCP, To: rig.At(rig.Internet4 + ":0")},
		"outside, v6": {Proto: host.UDP, To: netip.AddrPortFrom(netip.MustParseAddr(rig.Internet6), 0)},
	} {
		if r := rig.TryPatiently(b.guest, b.internet, p); r.Reached {
			works = append(works, name)
		}
	}
	for name, p := range map[string]host.Probe{
		"DNS":     {Proto: host.UDP, To: rig.At("192.168.122.1:53")},
		"DNS, v6": {Proto: host.TCP, To: netip.AddrPortFrom(netip.MustParseAddr("2001:db8:122::1"), 53)},
		"DHCP":    {Proto: host.UDP, To: rig.At("192.168.122.1:67")},
	} {
		if r := rig.TryPatiently(b.guest, b.Host, p); r.Reached {
			works = append(works, name)
		}
	}
	return rig.Sorted(works)
}

func everything() []string { return []string{"DHCP", "DNS", "DNS, v6", "outside", "outside, v6"} }

// remedy returns the commands that Diagnose gives for the network.
func (b *beside) remedy() (summary string, commands []string) {
	b.T.Helper()
	var all []map[string]godbus.Variant
	b.OK(b.Manager("Diagnose"), &all)
	for _, f := range all {
		if f["Id"].Value() == "foreign-drop" && f["Network"].Value() == "default" {
			return f["Summary"].Value().(string), strings.Split(f["Remedy"].Value().(string), "; ")
		}
	}
	b.T.Fatal("Diagnose says nothing of what stops the guests")
	return "", nil
}

// stopped checks that only some traffic works, that Diagnose names who stops the
// rest, and that what it says to help does: the commands are taken as they stand.
func (b *beside) stopped(t *testing.T, works []string, by string) {
	t.Helper()
	b.AwaitState("default", "degraded")
	rig.Same(t, "beside the others", works, b.reaches())
	summary, commands := b.remedy()
	rig.WantText(t, "the summary", summary, by)
	for _, command := range commands {
		b.Must("sh", "-c", command)
	}
	b.AwaitState("default", "active")
	rig.Same(t, "with what helps", everything(), b.reaches())
	rig.Guarded(t, b.guest, b.internet, "with what helps")
}

// dockerd starts Docker, which drops what is forwarded where it has to switch
// forwarding on itself: before the service, that is.
func dockerd(b *beside) {
	d := b.Start("dockerd", "dockerd", "--data-root", "/tmp/docker", "--exec-root", "/run/docker", "-s", "vfs")
	b.Until("dockerd listens", func() bool { return strings.Contains(d.Log(), "API listen on") })
}

func ufw(b *beside) {
	b.Must("sh", "-c", "ufw default deny incoming; ufw default deny routed; ufw --force enable")
}

func rules(script string) func(b *beside) {
	return func(b *beside) { b.Must("sh", "-c", script) }
}

// TestStateKnowsWhatOthersStop, and what is said to help does: the commands are taken
// as they stand.
func TestStateKnowsWhatOthersStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, later func(b *beside) // before the service, or beside it
		works        []string        // before anything helps
		names        string          // who it is said to be
	}{
		"Docker": {dockerd, nil, []string{"DHCP", "DNS", "DNS, v6", "outside, v6"}, "Docker stops"},
		"ufw":    {nil, ufw, nil, "ufw stops"},
		"policies": {
			nil, rules("for p in iptables ip6tables; do $p -w -P FORWARD DROP; $p -w -P INPUT DROP; done; ip6tables -w -A INPUT -i wan0 -p ipv6-icmp -j ACCEPT"), nil, "a policy of iptables",
		},
		"a last rule": {
			nil, rules("iptables -w -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -w -N LAST; iptables -w -A FORWARD -j LAST; iptables -w -A LAST -j REJECT"),
			[]string{"DHCP", "DNS", "DNS, v6", "outside, v6"}, "a rule of iptables",
		},
	} {
		for _, variant := range rig.IptablesVariants {
			t.Run(name+"/"+variant, func(t *testing.T) {
				t.Parallel()
				b := newBeside(t, variant)
				if c.first != nil {
					c.first(b)
				}
				b.start()
				if c.later != nil {
					b.AwaitState("default", "active")
					rig.Same(t, "before", everything(), b.reaches())
					c.later(b)
				}
				b.stopped(t, c.works, c.names)
			})
		}
	}
}

// TestStateKnowsWhatOtherTablesStop, which are read and never written.
func TestStateKnowsWhatOtherTablesStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		works  []string
	}{
		"strict": {`table inet filter {
			chain input { type filter hook input priority filter; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }
				iif lo accept; tcp dport { 22, 80-90 } accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }
			chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept; ct status dnat accept; iifname "wg0" accept; }
		}`, nil},
		"one bridge": {`table inet guard {
			map ways { type ifname . ifname : verdict; elements = { "virbr0" . "eth7" : accept, "virbr0" . "wan0" : goto shut } }
			chain shut { meta l4proto { tcp, udp } reject; }
			chain forward { type filter hook forward priority 10; iifname . oifname vmap @ways; }
		}`, []string{"DHCP", "DNS", "DNS, v6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBeside(t, "nft")
			b.start()
			b.AwaitState("default", "active")
			_, err := b.RunInput(c.script, "nft", "-f", "-")
			rig.Must(t, err)
			b.stopped(t, c.works, "nft table inet")
		})
	}
}

// TestWhatLibvirtsChainsLetPass: with the iptables backend in the same variant no
// policy stops guests, and the state says so.
func TestWhatLibvirtsChainsLetPass(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			b := newBeside(t, variant)
			b.start()
			b.Announce(rig.Uncovered)
			rules("iptables -w -P FORWARD DROP; iptables -w -P INPUT DROP")(b)
			b.AwaitState("default", "degraded")
			b.SwitchTo("iptables")
			b.AwaitState("default", "active")
			rig.Same(t, "with libvirt's chains", everything(), b.reaches())
			b.SwitchTo("nftables")
			b.AwaitState("default", "degraded")
			rules("iptables -w -P FORWARD ACCEPT; iptables -w -P INPUT ACCEPT")(b)
			b.AwaitState("default", "active")
		})
	}
}
