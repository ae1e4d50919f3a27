package packages

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// guestsUnit brings bridges with guests as early as one that follows systemd's
// rules for network services may, and as systemd-networkd does.
const guestsUnit = `[Unit]
DefaultDependencies=no
After=network-pre.target systemd-sysctl.service
Before=network.target multi-user.target shutdown.target
Conflicts=shutdown.target
Wants=network.target

[Service]
ExecStart=/bin/bash /root/guests-at-boot.sh
Type=oneshot
RemainAfterExit=yes

[Install]
WantedBy=multi-user.target
`

const (
	unitsDir = "/etc/systemd/system/"
	dropInTo = unitsDir + "virtfirewalld.service.d/slow.conf"
)

// atBoot is a host that boots with persistent networks whose guests send at
// once.
type atBoot struct{ *packaged }

func newAtBoot(t *testing.T, backend string) atBoot {
	t.Helper()
	b := atBoot{newPackaged(t, host.Booted())}
	b.dpkg("-i", "/root/older.deb")
	b.Must("virtfirewallctl", "backend", backend, "--persistent")
	b.persist(rig.NetXML("default", "virbr0", "nat6", "192.168.122.1/24", "fd00:122::1/64"))
	b.persist(rig.NetXML("closed", "virbr9", "isolated", "10.9.0.1/24", "fd00:9::1/64"))
	rig.Must(t, b.CopyIn("testdata/guests-at-boot.sh", "/root/guests-at-boot.sh"))
	b.unit("guests-at-boot.service", guestsUnit)
	b.Must("systemctl", "enable", "guests-at-boot.service")
	return b
}

func (p *packaged) persist(xml string) {
	p.t.Helper()
	rig.Must(p.t, p.WriteFile("/root/network.xml", []byte(xml), 0o644))
	p.Must("virtfirewallctl", "add", "/root/network.xml", "--persistent")
}

// unit writes a unit, or a part of one, which the next boot knows.
func (p *packaged) unit(name, text string) {
	p.t.Helper()
	p.Must("mkdir", "-p", unitsDir+"virtfirewalld.service.d")
	rig.Must(p.t, p.WriteFile(unitsDir+name, []byte(text), 0o644))
}

// counted are packets since the boot, by what they are and over which node saw
// them: those of each sender, those at the outside and those at the guests.
type counted map[string]int

var counterLine = regexp.MustCompile(`counter (\w+) \{\s+packets (\d+)`)

// seen waits until translated packets have arrived for a while, and returns what
// else did until then.
func (b atBoot) seen(enough string, least int) counted {
	b.t.Helper()
	all := counted{}
	b.until(fmt.Sprintf("%d packets %s", least, enough), func() bool {
		for _, node := range []string{"outside", "nat", "isolated"} {
			out, err := b.Run("ip", "netns", "exec", node, "nft", "list", "counters")
			if err != nil {
				b.t.Fatalf("counting at %s: %v\n%s", node, err, out)
			}
			for _, match := range counterLine.FindAllStringSubmatch(out, -1) {
				all[node+" "+match[1]], _ = strconv.Atoi(match[2])
			}
		}
		return all[enough] >= least
	})
	return all
}

// mustNot are packets that no instant of a boot may let through.
var mustNot = []string{"outside untranslated", "outside isolated", "outside forged", "nat unasked", "isolated unasked"}

// protected checks that no wrong packet passed from the first one on.
func (b atBoot) protected(when string) {
	b.t.Helper()
	all := b.seen("outside translated", 500)
	for _, kind := range mustNot {
		if all[kind] > 0 {
			b.t.Errorf("%s: %d packets: %s", when, all[kind], kind)
		}
	}
	for _, sender := range []string{"outside sent", "nat sent", "isolated sent"} {
		if all[sender] < 500 {
			b.t.Errorf("%s: only %d packets: %s", when, all[sender], sender)
		}
	}
	b.t.Logf("%s: %v", when, all)
	b.before("guests-at-boot.service")
}

// open checks that every kind of wrong packet passes where nothing is in time:
// else their absence would say nothing.
func (b atBoot) open(when string) {
	b.t.Helper()
	all := b.seen("outside isolated", 50)
	for _, kind := range mustNot {
		if all[kind] == 0 {
			b.t.Errorf("%s, nothing is seen of: %s", when, kind)
		}
	}
	b.t.Logf("%s: %v", when, all)
}

// before checks that the service was ready when units began to start.
func (p *packaged) before(units ...string) {
	p.t.Helper()
	ready := p.stamp("virtfirewalld.service", "ActiveEnter")
	if ready == 0 {
		p.t.Error("virtfirewalld did not become ready")
	}
	for _, unit := range units {
		switch began := p.stamp(unit, "InactiveExit"); {
		case began == 0:
			p.t.Errorf("%s was not started", unit)
		case began < ready:
			p.t.Errorf("%s began to start %d µs before virtfirewalld was ready", unit, ready-began)
		}
	}
}

// stamp is when a unit did something in this boot, 0 for never.
func (p *packaged) stamp(unit, what string) (microseconds uint64) {
	p.t.Helper()
	out := p.Must("systemctl", "show", "--value", "--property="+what+"TimestampMonotonic", unit)
	if _, err := fmt.Sscan(out, &microseconds); err != nil {
		p.t.Errorf("reading the time of %s: %v", unit, err)
	}
	return microseconds
}

// TestBootProtectsFromTheFirstPacket boots hosts whose guests send from the
// first moment on: with the service that is shipped, with one that takes its
// time to start, with one that fails to where the network requires it, and, to show that wrong packets would be seen, with one that
// is not ordered before the network and with none.
func TestBootProtectsFromTheFirstPacket(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			b := newAtBoot(t, backend)
			b.Reboot()
			b.protected("boot")

			b.unit("virtfirewalld.service.d/slow.conf", "[Service]\nExecStartPre=sleep 3\n")
			b.Reboot()
			b.protected("slow start")

			// As the manual says for those who would rather have no network.
			b.unit("virtfirewalld.service.d/slow.conf", "[Service]\nRestart=no\nExecStartPre=sleep 1\nExecStartPre=false\n")
			b.unit("guests-at-boot.service", strings.Replace(guestsUnit, "[Unit]\n", "[Unit]\nRequires=virtfirewalld.service\nAfter=virtfirewalld.service\n", 1))
			b.Reboot()
			b.says("inactive", "systemctl", "is-active", "guests-at-boot.service")
			b.says("", "ip", "netns", "list")

			b.unit("guests-at-boot.service", guestsUnit)
			// Long enough for guests to begin first, also on a busy machine.
			b.unit("virtfirewalld.service.d/slow.conf", "[Service]\nExecStartPre=sleep 15\n")
			b.Must("sh", "-c", "sed '/^Before=/d' /usr/lib/systemd/system/virtfirewalld.service >"+unitsDir+"virtfirewalld.service")
			b.Reboot()
			b.open("not ordered")

			b.Must("rm", dropInTo)
			b.Must("systemctl", "disable", "virtfirewalld.service")
			b.Reboot()
			b.open("not enabled")
		})
	}
}
