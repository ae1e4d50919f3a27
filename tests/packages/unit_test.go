package packages

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// unitRig returns a booted host with the service under its shipped unit, from the
// package. The service is under test inside its sandbox.
func unitRig(t *testing.T, options ...host.Option) *rig.Rig {
	t.Helper()
	p := newPackaged(t, append([]host.Option{host.Booted()}, options...)...)
	p.dpkg("-i", "/root/older.deb")
	r := rig.Over(t, p.Host)
	r.AwaitName(rig.ManagerName)
	return r
}

// journal returns what the unit logged at a priority, or a worse one.
func journal(r *rig.Rig, priority string, more ...string) string {
	r.T.Helper()
	r.Must("journalctl", "--sync")
	out, _ := r.Run(append([]string{"journalctl", "-q", "--no-pager", "-o", "cat", "-p", priority, "-u", "virtfirewalld"}, more...)...)
	return strings.TrimSpace(out)
}

func unitProperty(r *rig.Rig, name string) string {
	r.T.Helper()
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
	rig.SetIptables(r.Host, variant)
	r.SwitchTo(backend)
	if r.Sysctl(rig.Forward4) != "0" || r.Sysctl(rig.Forward6) != "0" {
		t.Fatal("forwarding is on before there is a network")
	}
	leftovers(r, t, variant)
	nodes := rig.BuildVillage(r.Host)
	for _, v := range rig.Village {
		r.OK(r.AddXML(v.XML))
	}
	if r.Sysctl(rig.Forward4) != "1" || r.Sysctl(rig.Forward6) != "1" {
		t.Error("forwarding is off")
	}
	keepsSettings(r)
	got := rig.Matrix(t, nodes)
	file := rig.Source("tests/packets/testdata/verdicts.golden")
	if backend == "iptables" {
		file = "testdata/verdicts-iptables.golden"
	}
	rig.GoldenLines(t, file, got)

	awaitNoLeftovers(r, variant)
	r.Must("systemctl", "start", "firewalld")
	for _, v := range rig.Village {
		want := map[string]string{"route": "libvirt-routed", "route-wan": "libvirt-routed", "open": ""}
		zone, named := want[v.Name]
		if !named {
			zone = "libvirt"
		}
		r.Firewalld.AwaitZone(v.Name, v.Bridge, zone)
	}
	rig.Natted(t, nodes["nat"].(*host.Peer), nodes["internet"].(*host.Peer), "beside firewalld")
	helpsDHCP(r, backend)
	for line := range strings.Lines(journal(r, "warning")) {
		if !strings.Contains(line, rig.Uncovered) {
			t.Errorf("the service complains inside its sandbox: %s", line)
		}
	}
	if n := unitProperty(r, "NRestarts"); n != "0" {
		t.Errorf("the service was started again %s times", n)
	}
}

// keepsSettings checks that the service may write the settings of links, too.
func keepsSettings(r *rig.Rig) {
	r.T.Helper()
	for _, v := range rig.Village {
		if got := r.Sysctl("net.ipv6.conf." + v.Bridge + ".accept_ra"); got != "0" {
			r.T.Errorf("accept_ra of %s is %s", v.Bridge, got)
		}
	}
	for _, key := range []string{rig.Forward4, rig.Forward6, "net.ipv4.conf.virbr1.forwarding"} {
		r.Must("sysctl", "-q", "-w", key+"=0")
		r.Until(key+" is on again", func() bool { return r.Sysctl(key) == "1" })
	}
}

// leftovers has libvirt leave a network behind, in a variant of iptables.
func leftovers(r *rig.Rig, t *testing.T, variant string) {
	p := rig.LibvirtOn(t, r.Host)
	if err := p.StartNetwork("left", "<network><name>left</name><forward mode='nat'/><bridge name='virbr1' stp='off'/>"+
		"<ip address='10.1.0.1' prefix='24'/></network>"); err != nil {
		t.Fatal(err)
	}
	if rules := r.Must("iptables-" + variant + "-save"); !strings.Contains(rules, "-A LIBVIRT_PRT -s 10.1.0.0/24") {
		t.Fatalf("libvirt made no rules:\n%s", rules)
	}
	p.Kill()
	p.Forget("left")
	r.Must("ip", "link", "delete", "virbr1")
}

// awaitNoLeftovers waits until libvirt's rules are gone, but for those that the
// service itself has.
func awaitNoLeftovers(r *rig.Rig, variant string) {
	r.T.Helper()
	r.Until("what libvirt left is gone", func() bool {
		const masquerade = "-A LIBVIRT_PRT -s 10.1.0.0/24 ! -d 10.1.0.0/24 -j MASQUERADE"
		want := 0
		if r.ManagerProperty("Backend") == "iptables" {
			want = 1
		}
		return strings.Count(r.Must("iptables-"+variant+"-save"), masquerade) == want
	})
}

// helpsDHCP adds a network that serves addresses, and has a guest get one.
func helpsDHCP(r *rig.Rig, backend string) {
	r.T.Helper()
	r.Bridge("virbr20", "10.20.0.1/24")
	r.OK(r.AddXML("<network><name>dhcp</name><forward mode='nat'/><bridge name='virbr20'/>" +
		"<ip address='10.20.0.1' prefix='24'><dhcp><range start='10.20.0.100' end='10.20.0.120'/></dhcp></ip></network>"))
	r.Until("replies of DHCP get their checksums", func() bool {
		return strings.Contains(r.Must("iptables-save", "-t", "mangle"), "CHECKSUM --checksum-fill")
	})
	r.Dnsmasq("virbr20")
	guest := r.Guest("virbr20", "asks")
	guest.Must("udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2")
	if out := guest.Must("ip", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "inet 10.20.0.") {
		r.T.Errorf("%s: no address after DHCP:\n%s", backend, out)
	}
}

// TestUnit is the service under systemd, by what systemctl and journalctl say.
func TestUnit(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]host.Option{"dbus-daemon": host.Booted(), "dbus-broker": host.WithBroker()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unitRig(t, option)
			r.Bridge("virbr0", rig.NatNet)
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
			rules := rig.Uncounted(rig.TableLines(r.Host))
			same := func(when string) {
				t.Helper()
				r.AwaitName(rig.ManagerName)
				if state, reason := r.State("default"); state != "active" {
					t.Errorf("%s: the network is %s: %s", when, state, reason)
				}
				rig.Same(t, when+": the rules", rules, rig.Uncounted(rig.TableLines(r.Host)))
			}
			if out := r.Must("systemd-analyze", "security", "--no-pager", "virtfirewalld"); !exposedAtMost(out, 2.0) {
				t.Errorf("the sandbox:\n%s", out)
			}
			reloads(r, same)
			logsFields(r)
			showsStates(r)
			restartsByItself(r, same)
			stopsAndIsActivated(r, same)
			onlyRootOwnsTheName(r)
			givesUp(r)
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
func reloads(r *rig.Rig, same func(string)) {
	r.T.Helper()
	pid := unitProperty(r, "MainPID")
	r.Write(rig.NetworksDir+"/later.xml", rig.NetXML("later", "virbr1", "nat", "10.9.0.1/24"))
	r.Must("systemctl", "reload", "virtfirewalld")
	r.Until("the reload has ended", func() bool { return strings.HasPrefix(unitProperty(r, "StatusText"), "2 networks") })
	r.WantNames("after systemctl reload", "default", "later")
	r.Until("the unit is active again", func() bool { return unitProperty(r, "ActiveState") == "active" })
	r.OK(r.Manager("RemoveNetwork", "later", rig.Opts("Persistent", true)))
	if now := unitProperty(r, "MainPID"); now != pid {
		r.T.Error("a reload is a restart")
	}
	same("reloaded")
}

// logsFields looks for what concerns the network by the journal's fields.
func logsFields(r *rig.Rig) {
	r.T.Helper()
	out := journal(r, "info", "-o", "json", "NETWORK=default", "BRIDGE=virbr0", "BACKEND=nftables", "CAUSE=AddNetwork")
	var entry map[string]any
	if err := json.Unmarshal([]byte(out), &entry); err != nil || !strings.HasPrefix(fmt.Sprint(entry["MESSAGE"]), "added a network") {
		r.T.Errorf("the journal has of the network: %v, %s", err, out)
	}
}

// showsStates takes the bridge of a network away and back: systemctl status and
// the journal say so, each change in one line with its code.
func showsStates(r *rig.Rig) {
	r.T.Helper()
	r.Bridge("virbr7", "10.7.0.1/24")
	r.OK(r.AddXML(rig.Lab("lab", 7)))
	status := func(want string) {
		r.T.Helper()
		r.Until("systemctl status says "+want, func() bool { return strings.HasPrefix(unitProperty(r, "StatusText"), want+", nftables") })
	}
	lines := func(state, code string, want int) {
		r.T.Helper()
		fields := []string{"NETWORK=lab", "VIRTFIREWALL_STATE=" + state}
		if code != "" {
			fields = append(fields, "VIRTFIREWALL_STATE_CODE="+code)
		}
		if out := journal(r, "info", fields...); strings.Count(out, "a network is "+state) != want {
			r.T.Errorf("the journal has %q of State %s, want %d lines", out, state, want)
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
	r.AwaitName(rig.ManagerName)
	lines("active", "", 1) // a start has no line for what is active
	if out := r.Must("systemctl", "status", "--no-pager", "virtfirewalld"); !strings.Contains(out, `Status: "2 networks, nftables"`) {
		r.T.Errorf("systemctl status says\n%s", out)
	}
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts()))
}

// restartsByItself kills the service, and has it hang.
func restartsByItself(r *rig.Rig, same func(string)) {
	r.T.Helper()
	r.Must("sh", "-c", "mkdir -p /run/systemd/system/virtfirewalld.service.d && printf '[Service]\nWatchdogSec=2s\n' > /run/systemd/system/virtfirewalld.service.d/test.conf && systemctl daemon-reload && systemctl restart virtfirewalld")
	same("restarted")
	for _, signal := range []string{"KILL", "STOP"} { // the watchdog notices what stands still
		pid := unitProperty(r, "MainPID")
		r.Must("kill", "-"+signal, pid)
		r.Until("systemd starts it again after SIG"+signal, func() bool {
			now := unitProperty(r, "MainPID")
			return now != "0" && now != pid && unitProperty(r, "ActiveState") == "active"
		})
		same("after SIG" + signal)
	}
	r.Must("sh", "-c", "rm /run/systemd/system/virtfirewalld.service.d/test.conf && systemctl daemon-reload && systemctl restart virtfirewalld")
}

// stopsAndIsActivated stops the service, which leaves the rules, and has the bus
// start it again, with its runtime network.
func stopsAndIsActivated(r *rig.Rig, same func(string)) {
	r.T.Helper()
	r.Must("systemctl", "reset-failed", "virtfirewalld") // it was started many times by now
	r.Must("systemctl", "stop", "virtfirewalld")
	if table := r.Table(); !rig.InTable(table, "default") {
		r.T.Errorf("a stop takes the rules:\n%s", table)
	}
	r.Must("busctl", "call", rig.ManagerName, string(rig.ManagerPath), rig.ManagerName, "ListNetworks")
	if state := unitProperty(r, "ActiveState"); state != "active" {
		r.T.Errorf("after a call the unit is %s", state)
	}
	same("activated")
	// A disabled service must not be started by a read-only command.
	r.Must("systemctl", "disable", "--now", "virtfirewalld")
	if out, err := r.Run("busctl", "call", rig.ManagerName, string(rig.ManagerPath), rig.ManagerName, "ListNetworks"); err == nil {
		r.T.Errorf("a call starts the disabled service: %s", out)
	}
	r.Must("systemctl", "enable", "--now", "virtfirewalld")
	same("enabled")
}

// onlyRootOwnsTheName tries to own the service's name as another user.
func onlyRootOwnsTheName(r *rig.Rig) {
	r.T.Helper()
	r.Must("systemctl", "stop", "virtfirewalld")
	out, err := r.RunAs(2001, "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", rig.ManagerName, "4")
	if err == nil || !strings.Contains(out, "denied") && !strings.Contains(out, "not allowed") {
		r.T.Errorf("a user may own the name: %v, %s", err, out)
	}
	r.Must("systemctl", "start", "virtfirewalld")
	if out, err := r.RunAs(2001, "busctl", "call", rig.ManagerName, string(rig.ManagerPath), rig.ManagerName, "ListNetworks"); err != nil {
		r.T.Errorf("a user may not call: %v, %s", err, out)
	}
}

// withoutBackend makes each start fail: a configuration that cannot be read is no
// reason to end, a backend that was asked for and does not work is one.
func withoutBackend(r *rig.Rig) (mend func()) {
	r.T.Helper()
	r.Configure("firewall_backend = \"iptables\"")
	r.Must("sh", "-c", "chmod a-x /usr/sbin/xtables-*-multi")
	return func() {
		r.Must("sh", "-c", "chmod a+x /usr/sbin/xtables-*-multi")
		r.Configure("")
	}
}

// givesUp makes the service fail at each start.
func givesUp(r *rig.Rig) {
	r.T.Helper()
	mend := withoutBackend(r)
	_, _ = r.Run("systemctl", "restart", "virtfirewalld")
	r.Until("systemd gives up", func() bool {
		return unitProperty(r, "ActiveState") == "failed" && unitProperty(r, "SubState") == "failed"
	})
	if log := journal(r, "info"); !strings.Contains(log, "virtfirewalld.conf, line") {
		r.T.Errorf("the journal does not say what to mend:\n%s", log)
	}
	if table := r.Table(); !rig.InTable(table, "default") {
		r.T.Errorf("a service that cannot start takes the rules:\n%s", table)
	}
	mend()
	r.Must("systemctl", "reset-failed", "virtfirewalld")
	r.Must("systemctl", "start", "virtfirewalld")
}
