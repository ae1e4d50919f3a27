package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// unitRig is a booted host with the service under its shipped unit, from the
// package. The service is under test inside its sandbox.
func unitRig(t *testing.T, options ...host.Option) *rig {
	t.Helper()
	p := newPackaged(t, append([]host.Option{host.Booted()}, options...)...)
	p.dpkg("-i", "/root/older.deb")
	r := &rig{Host: p.Host, t: t}
	conn, err := r.DialBus(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.bus = conn
	r.AwaitName(managerName)
	return r
}

// journal is what the unit logged at a priority, or a worse one.
func (r *rig) journal(priority string, more ...string) string {
	r.t.Helper()
	r.Must("journalctl", "--sync")
	out, _ := r.Run(append([]string{"journalctl", "-q", "--no-pager", "-o", "cat", "-p", priority, "-u", "virtfirewalld"}, more...)...)
	return strings.TrimSpace(out)
}

func (r *rig) unitProperty(name string) string {
	r.t.Helper()
	return strings.TrimSpace(r.Must("systemctl", "show", "--value", "--property="+name, "virtfirewalld"))
}

// TestPacketsUnderTheShippedUnit is the packet suite within the sandbox, for
// both backends and both variants of iptables: verdicts between networks of all
// kinds, forwarding that had to be switched on, help for DHCP replies, what
// libvirt left, and firewalld.
func TestPacketsUnderTheShippedUnit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ backend, variant string }{
		{"nftables", "nft"}, {"nftables", "legacy"}, {"iptables", "nft"}, {"iptables", "legacy"},
	} {
		t.Run(c.backend+" beside iptables-"+c.variant, func(t *testing.T) {
			t.Parallel()
			sandboxed(t, c.backend, c.variant)
		})
	}
}

func sandboxed(t *testing.T, backend, variant string) {
	r := unitRig(t)
	setIptables(r.Host, variant)
	r.switchTo(backend)
	if r.sysctl(forward4) != "0" || r.sysctl(forward6) != "0" {
		t.Fatal("forwarding is on before there is a network")
	}
	r.leftovers(t, variant)
	nodes := settle(r.Host)
	for _, v := range village {
		r.must(r.AddXML(v.xml))
	}
	if r.sysctl(forward4) != "1" || r.sysctl(forward6) != "1" {
		t.Error("forwarding is off")
	}
	r.keepsSettings()
	got := matrix(t, nodes)
	file := "testdata/verdicts.golden"
	if backend == "iptables" {
		file = "testdata/verdicts-iptables.golden"
	}
	goldenLines(t, file, got)

	r.awaitNoLeftovers(variant)
	r.Must("systemctl", "start", "firewalld")
	for _, v := range village {
		want := map[string]string{"route": "libvirt-routed", "route-wan": "libvirt-routed", "open": ""}
		zone, named := want[v.name]
		if !named {
			zone = "libvirt"
		}
		r.awaitZone(v.name, v.bridge, zone)
	}
	natted(t, nodes["nat"].(*host.Peer), nodes["internet"].(*host.Peer), "beside firewalld")
	r.helpsDHCP(backend)
	for line := range strings.Lines(r.journal("warning")) {
		if !strings.Contains(line, uncovered) {
			t.Errorf("the service complains inside its sandbox: %s", line)
		}
	}
	if n := r.unitProperty("NRestarts"); n != "0" {
		t.Errorf("the service was started again %s times", n)
	}
}

// keepsSettings checks that the service may write the settings of links, too.
func (r *rig) keepsSettings() {
	r.t.Helper()
	for _, v := range village {
		if got := r.sysctl("net.ipv6.conf." + v.bridge + ".accept_ra"); got != "0" {
			r.t.Errorf("accept_ra of %s is %s", v.bridge, got)
		}
	}
	for _, key := range []string{forward4, forward6, "net.ipv4.conf.virbr1.forwarding"} {
		r.Must("sysctl", "-q", "-w", key+"=0")
		r.until(key+" is on again", func() bool { return r.sysctl(key) == "1" })
	}
}

// leftovers has libvirt leave a network behind, in a variant of iptables.
func (r *rig) leftovers(t *testing.T, variant string) {
	p := libvirtOn(t, r.Host)
	if err := p.run("left", "<network><name>left</name><forward mode='nat'/><bridge name='virbr1' stp='off'/>"+
		"<ip address='10.1.0.1' prefix='24'/></network>"); err != nil {
		t.Fatal(err)
	}
	if rules := r.Must("iptables-" + variant + "-save"); !strings.Contains(rules, "-A LIBVIRT_PRT -s 10.1.0.0/24") {
		t.Fatalf("libvirt made no rules:\n%s", rules)
	}
	p.kill()
	p.forget("left")
	r.Must("ip", "link", "delete", "virbr1")
}

// awaitNoLeftovers waits until libvirt's rules are gone, but for those that the
// service itself has.
func (r *rig) awaitNoLeftovers(variant string) {
	r.t.Helper()
	r.until("what libvirt left is gone", func() bool {
		const masquerade = "-A LIBVIRT_PRT -s 10.1.0.0/24 ! -d 10.1.0.0/24 -j MASQUERADE"
		want := 0
		if r.managerProperty("Backend") == "iptables" {
			want = 1
		}
		return strings.Count(r.Must("iptables-"+variant+"-save"), masquerade) == want
	})
}

// helpsDHCP adds a network that serves addresses, and has a guest get one.
func (r *rig) helpsDHCP(backend string) {
	r.t.Helper()
	r.Bridge("virbr20", "10.20.0.1/24")
	r.must(r.AddXML("<network><name>dhcp</name><forward mode='nat'/><bridge name='virbr20'/>" +
		"<ip address='10.20.0.1' prefix='24'><dhcp><range start='10.20.0.100' end='10.20.0.120'/></dhcp></ip></network>"))
	r.until("replies of DHCP get their checksums", func() bool {
		return strings.Contains(r.Must("iptables-save", "-t", "mangle"), "CHECKSUM --checksum-fill")
	})
	r.Dnsmasq("virbr20")
	guest := r.Guest("virbr20", "asks")
	guest.Must("udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2")
	if out := guest.Must("ip", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "inet 10.20.0.") {
		r.t.Errorf("%s: no address after DHCP:\n%s", backend, out)
	}
}

// TestUnit is the service under systemd, by what systemctl and journalctl say.
func TestUnit(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]host.Option{"dbus-daemon": host.Booted(), "dbus-broker": host.WithBroker()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unitRig(t, option)
			r.Bridge("virbr0", natNet)
			r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
			rules := tableLinesUncounted(r.Host)
			same := func(when string) {
				t.Helper()
				r.AwaitName(managerName)
				if state, reason := r.State("default"); state != "active" {
					t.Errorf("%s: the network is %s: %s", when, state, reason)
				}
				if got := tableLinesUncounted(r.Host); strings.Join(got, "\n") != strings.Join(rules, "\n") {
					t.Errorf("%s: the rules are\n%s", when, strings.Join(got, "\n"))
				}
			}
			if out := r.Must("systemd-analyze", "security", "--no-pager", "virtfirewalld"); !exposedAtMost(out, 2.0) {
				t.Errorf("the sandbox:\n%s", out)
			}
			r.reloads(same)
			r.logsFields()
			r.showsStates()
			r.restartsByItself(same)
			r.stopsAndIsActivated(same)
			r.onlyRootOwnsTheName()
			r.givesUp()
		})
	}
}

func exposedAtMost(analysis string, most float64) bool {
	_, rest, found := strings.Cut(analysis, "Overall exposure level for virtfirewalld.service: ")
	var level float64
	_, err := fmt.Sscan(rest, &level)
	return found && err == nil && level <= most
}

// reloads checks that systemd hears of a reload and of its end, when what it
// read is in force.
func (r *rig) reloads(same func(string)) {
	r.t.Helper()
	pid := r.unitProperty("MainPID")
	r.write(networksDir+"/later.xml", netXML("later", "virbr1", "nat", "10.9.0.1/24"))
	r.Must("systemctl", "reload", "virtfirewalld")
	r.until("the reload has ended", func() bool { return strings.HasPrefix(r.unitProperty("StatusText"), "2 networks") })
	r.wantNames("after systemctl reload", "default", "later")
	r.until("the unit is active again", func() bool { return r.unitProperty("ActiveState") == "active" })
	r.must(r.Manager("RemoveNetwork", "later", opts("Persistent", true)))
	if now := r.unitProperty("MainPID"); now != pid {
		r.t.Error("a reload is a restart")
	}
	same("reloaded")
}

// logsFields looks for what concerns the network by the journal's fields.
func (r *rig) logsFields() {
	r.t.Helper()
	out := r.journal("info", "-o", "json", "NETWORK=default", "BRIDGE=virbr0", "BACKEND=nftables", "CAUSE=AddNetwork")
	var entry map[string]any
	if err := json.Unmarshal([]byte(out), &entry); err != nil || !strings.HasPrefix(fmt.Sprint(entry["MESSAGE"]), "added a network") {
		r.t.Errorf("the journal has of the network: %v, %s", err, out)
	}
}

// showsStates takes the bridge of a network away and back: systemctl status and
// the journal say so, each change in one line with its code.
func (r *rig) showsStates() {
	r.t.Helper()
	r.Bridge("virbr7", "10.7.0.1/24")
	r.must(r.AddXML(lab("lab", 7)))
	status := func(want string) {
		r.t.Helper()
		r.until("systemctl status says "+want, func() bool { return strings.HasPrefix(r.unitProperty("StatusText"), want+", nftables") })
	}
	lines := func(state, code string, want int) {
		r.t.Helper()
		fields := []string{"NETWORK=lab", "VIRTFIREWALL_STATE=" + state}
		if code != "" {
			fields = append(fields, "VIRTFIREWALL_STATE_CODE="+code)
		}
		if out := r.journal("info", fields...); strings.Count(out, "a network is "+state) != want {
			r.t.Errorf("the journal has %q of State %s, want %d lines", out, state, want)
		}
	}
	status("2 networks")
	r.Must("ip", "link", "delete", "virbr7")
	status("2 networks, 1 waiting")
	lines("waiting", "bridge-missing", 1)
	r.Bridge("virbr7", "10.7.0.1/24")
	status("2 networks")
	lines("active", "", 1)
	r.Must("systemctl", "restart", "virtfirewalld")
	r.AwaitName(managerName)
	lines("active", "", 1) // a start has no line for what is active
	if out := r.Must("systemctl", "status", "--no-pager", "virtfirewalld"); !strings.Contains(out, `Status: "2 networks, nftables"`) {
		r.t.Errorf("systemctl status says\n%s", out)
	}
	r.must(r.Manager("RemoveNetwork", "lab", opts()))
}

// restartsByItself kills the service, and has it hang.
func (r *rig) restartsByItself(same func(string)) {
	r.t.Helper()
	r.Must("sh", "-c", "mkdir -p /run/systemd/system/virtfirewalld.service.d && printf '[Service]\nWatchdogSec=2s\n' > /run/systemd/system/virtfirewalld.service.d/test.conf && systemctl daemon-reload && systemctl restart virtfirewalld")
	same("restarted")
	for _, signal := range []string{"KILL", "STOP"} { // the watchdog notices what stands still
		pid := r.unitProperty("MainPID")
		r.Must("kill", "-"+signal, pid)
		r.until("systemd starts it again after SIG"+signal, func() bool {
			now := r.unitProperty("MainPID")
			return now != "0" && now != pid && r.unitProperty("ActiveState") == "active"
		})
		same("after SIG" + signal)
	}
	r.Must("sh", "-c", "rm /run/systemd/system/virtfirewalld.service.d/test.conf && systemctl daemon-reload && systemctl restart virtfirewalld")
}

// stopsAndIsActivated stops the service, which leaves the rules, and has the bus
// start it again, with its runtime network.
func (r *rig) stopsAndIsActivated(same func(string)) {
	r.t.Helper()
	r.Must("systemctl", "reset-failed", "virtfirewalld") // it was started many times by now
	r.Must("systemctl", "stop", "virtfirewalld")
	if table := r.Table(); !strings.Contains(table, "net_default_from") {
		r.t.Errorf("a stop takes the rules:\n%s", table)
	}
	r.Must("busctl", "call", managerName, string(managerPath), managerName, "ListNetworks")
	if state := r.unitProperty("ActiveState"); state != "active" {
		r.t.Errorf("after a call the unit is %s", state)
	}
	same("activated")
	// Who disabled it does not want it started by a look.
	r.Must("systemctl", "disable", "--now", "virtfirewalld")
	if out, err := r.Run("busctl", "call", managerName, string(managerPath), managerName, "ListNetworks"); err == nil {
		r.t.Errorf("a call starts the disabled service: %s", out)
	}
	r.Must("systemctl", "enable", "--now", "virtfirewalld")
	same("enabled")
}

// onlyRootOwnsTheName tries to be the service as somebody else.
func (r *rig) onlyRootOwnsTheName() {
	r.t.Helper()
	r.Must("systemctl", "stop", "virtfirewalld")
	out, err := r.RunAs(2001, "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", managerName, "4")
	if err == nil || !strings.Contains(out, "denied") && !strings.Contains(out, "not allowed") {
		r.t.Errorf("a user may own the name: %v, %s", err, out)
	}
	r.Must("systemctl", "start", "virtfirewalld")
	if out, err := r.RunAs(2001, "busctl", "call", managerName, string(managerPath), managerName, "ListNetworks"); err != nil {
		r.t.Errorf("a user may not call: %v, %s", err, out)
	}
}

// withoutBackend makes each start fail: a configuration that cannot be read is no
// reason to end, a backend that was asked for and does not work is one.
func (r *rig) withoutBackend() (mend func()) {
	r.t.Helper()
	r.configure("firewall_backend = \"iptables\"")
	r.Must("sh", "-c", "chmod a-x /usr/sbin/xtables-*-multi")
	return func() {
		r.Must("sh", "-c", "chmod a+x /usr/sbin/xtables-*-multi")
		r.configure("")
	}
}

// givesUp has the service fail at each start.
func (r *rig) givesUp() {
	r.t.Helper()
	mend := r.withoutBackend()
	_, _ = r.Run("systemctl", "restart", "virtfirewalld")
	r.until("systemd gives up", func() bool {
		return r.unitProperty("ActiveState") == "failed" && r.unitProperty("SubState") == "failed"
	})
	if log := r.journal("info"); !strings.Contains(log, "virtfirewalld.conf, line") {
		r.t.Errorf("the journal does not say what to mend:\n%s", log)
	}
	if table := r.Table(); !strings.Contains(table, "net_default_from") {
		r.t.Errorf("a service that cannot start takes the rules:\n%s", table)
	}
	mend()
	r.Must("systemctl", "reset-failed", "virtfirewalld")
	r.Must("systemctl", "start", "virtfirewalld")
}
