// Package packages holds the tests of what is shipped: packages, installation, unit, boot.
package packages

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
	"github.com/virtfirewalld/virtfirewalld/tests/traffic"
)

// packaged is a host on which the Debian package is installed and removed.
type packaged struct {
	*host.Host
	t               *testing.T
	guest, internet *host.Peer
}

// newPackaged makes the host, with both versions' packages in /root.
func newPackaged(t *testing.T, options ...host.Option) *packaged {
	t.Helper()
	wantNotInstalled(t)
	deb, _, _ := built(t)
	p := &packaged{Host: host.New(t, options...), t: t}
	rig.Must(t, p.CopyIn(deb, "/root/older.deb"))
	rig.Must(t, p.CopyIn(newer(t), "/root/newer.deb"))
	// Trees of tests leave documentation out, for room.
	p.Must("sh", "-c", "grep -l ^path-exclude /etc/dpkg/dpkg.cfg.d/* | xargs -r rm")
	// Without this file man-db does not index the whole host's manual each time.
	p.Must("rm", "-f", "/var/lib/man-db/auto-update")
	// libvirt's package brings them, and the machine's may be another release's.
	for _, zone := range []string{"zones/libvirt", "zones/libvirt-routed", "policies/libvirt-routed-in", "policies/libvirt-routed-out", "policies/libvirt-to-host"} {
		rig.Must(t, p.CopyIn(rig.Source("zones/firewalld", zone+".xml"), "/usr/lib/firewalld/"+zone+".xml"))
	}
	return p
}

// wantNotInstalled ends a test at once where hosts would have the program from
// the beginning: they are made of the machine's files.
func wantNotInstalled(t *testing.T) {
	t.Helper()
	tree := cmp.Or(os.Getenv("VIRTFIREWALLD_TEST_ROOT"), "/")
	for _, file := range []string{
		"usr/sbin/virtfirewalld", "usr/local/sbin/virtfirewalld", "usr/bin/virtfirewallctl", "usr/local/bin/virtfirewallctl",
		"usr/lib/systemd/system/virtfirewalld.service", "etc/virtfirewalld", "var/lib/dpkg/info/virtfirewalld.list",
	} {
		if _, err := os.Lstat(filepath.Join(tree, file)); err == nil {
			t.Fatalf("%s is there, but the hosts of this test must be without virtfirewalld: take it out "+
				"(apt-get purge virtfirewalld, or make uninstall) or run make test-trixie", filepath.Join(tree, file))
		}
	}
}

// dpkg runs dpkg, which may take its time.
func (p *packaged) dpkg(args ...string) string {
	p.t.Helper()
	command := append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "dpkg"}, args...)
	process := p.Start("dpkg "+strings.Join(args, " "), command...)
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	if err := process.Wait(ctx); err != nil {
		p.t.Fatalf("dpkg %q: %v\n%s", args, err, process.Log())
	}
	return process.Log()
}

// settle adds a bridge with a guest, and an outside, to a booted host.
func (p *packaged) settle() {
	p.t.Helper()
	p.Bridge("virbr0", rig.NatNet)
	p.internet = p.Internet()
	p.guest = p.Guest("virbr0", "guest", "192.168.122.10/24")
}

// says runs a command and compares what it prints.
func (p *packaged) says(want string, args ...string) {
	p.t.Helper()
	out, _ := p.Run(args...)
	if got := strings.TrimSpace(out); got != want {
		p.t.Errorf("%s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// translates checks that packets pass as the network has it.
func (p *packaged) translates(when string) {
	p.t.Helper()
	rig.Natted(p.t, p.guest, p.internet, when)
	rig.Guarded(p.t, p.guest, p.internet, when)
}

// listed is what there is of a host where packages put things and programs
// leave them: dpkg's own records, logs and caches are everybody's.
func (p *packaged) listed() []string {
	p.t.Helper()
	// Into a file: what processes print is logged where a test fails.
	const list = `exec >/tmp/listing;
		find /etc -xdev -type f -exec sha256sum {} + ;
		find /etc /usr/bin /usr/sbin /usr/lib/systemd /usr/lib/tmpfiles.d /usr/lib/firewalld /usr/share -xdev -path "/usr/share/doc/*/*" -prune -o -printf '%y %m %u %p %l\n';
		find /usr /lib -xdev -maxdepth 2 -printf '%y %m %u %p %l\n';
		find /var -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd/timers -o -path /var/lib/systemd/random-seed -o -path "/var/tmp/systemd-private-*" \) \
			-prune -o -printf '%y %m %u %p %l\n';
		find /run -path '/run/systemd/[!s]*' -prune -o \( -path '*virtfirewall*' -o -path '/run/systemd/system*' \) -print`
	process := p.Start("listing", "sh", "-c", list)
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	rig.Must(p.t, process.Wait(ctx))
	text, err := p.ReadFile("/tmp/listing")
	rig.Must(p.t, err)
	lines := strings.Split(string(text), "\n")
	slices.Sort(lines)
	return slices.Compact(lines)
}

// asBefore checks that nothing is there, or gone, that was not before.
func (p *packaged) asBefore(before []string) {
	p.t.Helper()
	after := p.listed()
	if left := without(after, before); len(left) > 0 {
		p.t.Errorf("a purge leaves %d files or changes them: %s", len(left), some(left))
	}
	if taken := without(before, after); len(taken) > 0 {
		p.t.Errorf("a purge takes %d files or changes them: %s", len(taken), some(taken))
	}
	if len(after) < 1000 {
		p.t.Errorf("%d files were compared", len(after))
	}
}

// without returns the lines of one list that the other does not have.
func without(lines, others []string) []string {
	there := map[string]bool{}
	for _, line := range others {
		there[line] = true
	}
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return there[line] })
}

// some returns as many lines as one likes to read.
func some(lines []string) string { return strings.Join(lines[:min(len(lines), 50)], "\n") }

// ours returns the kernel's rules that the service could have made.
func (p *packaged) ours() string {
	p.t.Helper()
	nft := p.Must("nft", "list", "ruleset")
	// firewalld's zone is its own, as long as it has no bridge.
	legacy := p.Must("sh", "-c", "iptables-legacy-save; ip6tables-legacy-save")
	return strings.Join(regexp.MustCompile(`(?m)^.*(libvirt_network|LIBVIRT_|virbr).*$`).FindAllString(nft+legacy, -1), "\n")
}

// zone returns the firewalld zone of the bridge; "" for none.
func (p *packaged) zone() (zone string) {
	p.t.Helper()
	conn, err := p.DialBus(p.t.Context())
	rig.Must(p.t, err)
	defer conn.Close()
	const name = "org.fedoraproject.FirewallD1"
	call := conn.Object(name, "/org/fedoraproject/FirewallD1").Call(name+".zone.getZoneOfInterface", godbus.FlagNoAutoStart, "virbr0")
	_ = call.Store(&zone) // an error for an interface in no zone
	return zone
}

// TestLifeOfThePackage installs, enables, boots again, upgrades, removes and
// purges, with a guest's packets at each step, under both backends.
func TestLifeOfThePackage(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			p := newPackaged(t, host.Booted("firewalld"))
			before := p.listed()
			p.dpkg("-i", "/root/older.deb")
			p.says("enabled", "systemctl", "is-enabled", "virtfirewalld")
			p.says("active", "systemctl", "is-active", "virtfirewalld")
			p.says("", "dpkg", "-V", "virtfirewalld")
			p.says("", "sh", "-c", "systemctl --failed --plain --no-legend")
			if rules := p.ours(); rules != "" {
				t.Errorf("a service that was given nothing has rules:\n%s", rules)
			}
			p.Must("virtfirewallctl", "backend", backend, "--persistent")
			p.settle()
			p.add("default", "virbr0", rig.NatNet, "--persistent")
			p.add("passing", "virbr7", "10.7.0.1/24")
			p.translates("installed")

			p.Reboot()
			p.settle()
			p.says("active", "systemctl", "is-active", "virtfirewalld")
			p.says("default", "sh", "-c", "virtfirewallctl list | awk 'NR > 1 && !NF { exit } NR > 1 { print $1 }'")
			p.until("virbr0 is in its zone", func() bool { return p.zone() == "libvirt" })
			p.translates("booted again")

			p.upgrade(backend)
			p.remove()
			p.purge(before)
		})
	}
}

// add hands a network to the service.
func (p *packaged) add(name, bridge, ip string, flags ...string) {
	p.t.Helper()
	rig.Must(p.t, p.WriteFile("/root/network.xml", []byte(rig.NetXML(name, bridge, "nat", ip)), 0o644))
	p.Must(append([]string{"virtfirewallctl", "add", "/root/network.xml"}, flags...)...)
}

func (p *packaged) until(what string, happened func() bool) {
	p.t.Helper()
	if !rig.Await(rig.CallTimeout, happened) {
		p.t.Fatalf("it did not happen within %s: %s", rig.CallTimeout, what)
	}
}

// upgrade puts the newer version in while packets pass: none is lost, none
// passes that should not, and no network or counter starts from scratch.
func (p *packaged) upgrade(backend string) {
	p.t.Helper()
	p.add("passing", "virbr7", "10.7.0.1/24") // a runtime one, which an upgrade keeps
	running := p.Must("systemctl", "show", "--property=MainPID", "virtfirewalld")
	load, err := traffic.Start(p.guest, p.internet, traffic.Rates{Stream: 1000, Flows: 200, Unasked: 50, Forged: 50})
	rig.Must(p.t, err)
	defer load.Stop()
	flows := func(more uint64) {
		p.t.Helper()
		want := load.Received() + more
		p.until("the stream arrives", func() bool { return load.Received() >= want })
	}
	flows(500)
	p.dpkg("-i", "/root/newer.deb")
	flows(1000)
	report := load.Stop()
	p.t.Logf("upgrade with %s: %v", backend, report)
	for _, wrong := range report.Wrong(rig.WANAddress) {
		p.t.Errorf("upgrade: %s", wrong)
	}
	if now := p.Must("systemctl", "show", "--property=MainPID", "virtfirewalld"); now == running {
		p.t.Error("the old program runs on")
	}
	p.says("virtfirewalld 7.9.0-rc1", "virtfirewalld", "--version")
	p.says("default\npassing", "sh", "-c", "virtfirewallctl list | awk 'NR > 1 && !NF { exit } NR > 1 { print $1 }'")
	p.says(backend, "sh", "-c", "virtfirewallctl backend --json | sed -n 's/.*\"backend\": \"\\(.*\\)\".*/\\1/p'")
	p.translates("upgraded")
	// One that the administrator stopped stays stopped, and its rules stay.
	p.Must("systemctl", "stop", "virtfirewalld")
	p.dpkg("-i", "/root/newer.deb")
	p.says("inactive", "systemctl", "is-active", "virtfirewalld")
	p.translates("stopped and installed again")
}

// remove takes the program away, with its rules, though the service is stopped.
// What the administrator wrote stays.
func (p *packaged) remove() {
	p.t.Helper()
	if p.ours() == "" || p.zone() != "libvirt" {
		p.t.Errorf("nothing is there to be removed: zone %q", p.zone())
	}
	// A client that calls all the time must not bring it back.
	call := []string{"busctl", "call", rig.ManagerName, string(rig.ManagerPath), rig.ManagerName, "ListNetworks"}
	caller := p.Start("caller", "sh", "-c", "while :; do "+strings.Join(call, " ")+"; done")
	p.until("the caller brings it back", func() bool { _, err := p.Run("systemctl", "--quiet", "is-active", "virtfirewalld"); return err == nil })
	p.dpkg("-r", "virtfirewalld")
	rig.Must(p.t, caller.Signal(15))
	if out, err := p.Run(call...); err == nil {
		p.t.Errorf("somebody still answers: %s", out)
	}
	if rules := p.ours(); rules != "" {
		p.t.Errorf("rules are left after the removal:\n%s", rules)
	}
	if zone := p.zone(); zone == "libvirt" {
		p.t.Errorf("the bridge is still in a zone whose rules are gone")
	}
	p.says("inactive", "systemctl", "is-active", "virtfirewalld")
	p.says("/etc/virtfirewalld/networks/default.xml", "find", "/etc/virtfirewalld/networks", "-type", "f")
	p.says("", "sh", "-c", "ls -d /run/virtfirewalld /usr/sbin/virtfirewalld /run/systemd/system/virtfirewalld* 2>/dev/null")
}

// purge leaves nothing.
func (p *packaged) purge(before []string) {
	p.t.Helper()
	p.dpkg("--purge", "virtfirewalld")
	p.asBefore(before)
	if out, err := p.Run("systemctl", "cat", "virtfirewalld"); err == nil {
		p.t.Errorf("systemd still knows the unit:\n%s", out)
	}
}

// TestPackageWithoutSystemd installs and purges as in a chroot, where the
// kernel's rules belong to another system: the scripts work, and touch no rule.
func TestPackageWithoutSystemd(t *testing.T) {
	t.Parallel()
	p := newPackaged(t)
	before := p.listed()
	foreign := "table inet libvirt_network { chain c { counter accept; }; }"
	p.Must("nft", foreign)
	rules := p.Must("nft", "list", "ruleset")
	p.dpkg("-i", "/root/older.deb")
	p.says("virtfirewalld 7.8.9", "virtfirewalld", "--version")
	// libvirt's and firewalld's packages are there, and no file is anybody else's too.
	p.Must("dpkg", "-s", "libvirt-daemon-system", "firewalld")
	p.says("", "sh", "-c", `dpkg -L virtfirewalld | while read -r f; do [ -d "$f" ] || dpkg -S "$f"; done | grep -v '^virtfirewalld: '`)
	p.dpkg("-i", "/root/newer.deb")
	p.says("virtfirewalld 7.9.0-rc1", "virtfirewalld", "--version")
	p.dpkg("-r", "virtfirewalld")
	p.dpkg("--purge", "virtfirewalld")
	rig.Same(t, "rules of the machine outside", rules, p.Must("nft", "list", "ruleset"))
	p.asBefore(before)
}

// TestPackageKeepsWhatTheAdministratorDid: a service that was disabled, and
// settings that were changed, outlast an upgrade and a removal.
func TestPackageKeepsWhatTheAdministratorDid(t *testing.T) {
	t.Parallel()
	p := newPackaged(t, host.Booted())
	p.dpkg("-i", "/root/older.deb")
	p.Must("systemctl", "disable", "--now", "virtfirewalld")
	rig.Must(t, p.WriteFile(rig.ConfigFile, []byte("own_table = false\n"), 0o644))
	kept := func(when string) {
		t.Helper()
		for _, state := range [][2]string{{"is-enabled", "disabled"}, {"is-active", "inactive"}} {
			if out, _ := p.Run("systemctl", state[0], "virtfirewalld"); strings.TrimSpace(out) != state[1] {
				t.Errorf("%s: %s says %q", when, state[0], out)
			}
		}
		p.says("own_table = false", "cat", rig.ConfigFile)
	}
	p.dpkg("-i", "/root/newer.deb")
	kept("upgraded")
	p.dpkg("-r", "virtfirewalld")
	p.dpkg("-i", "--force-confold", "/root/newer.deb")
	kept("removed and installed again")
	p.Must("systemctl", "start", "virtfirewalld")
	p.dpkg("-i", "/root/older.deb")
	p.says("active", "systemctl", "is-active", "virtfirewalld")
	p.dpkg("--purge", "virtfirewalld")
	p.says("", "sh", "-c", fmt.Sprintf("ls -d /etc/virtfirewalld %s 2>/dev/null", rig.RuntimeDir))
}
