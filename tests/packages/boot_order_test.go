package packages

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// ordered are units in the order that their packages give them, for programs
// that the trees do not have: a cycle is a matter of these lines alone. Those
// of ours name no firewall, so that their place after it is our unit's doing.
var ordered = map[string]string{
	// Debian's ufw 0.36.
	"ufw.service": "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target\nWants=network-pre.target local-fs.target\nAfter=local-fs.target\n",
	// Docker Engine 27.
	"docker.service":     "[Unit]\nAfter=network-online.target nss-lookup.target docker.socket firewalld.service containerd.service time-set.target\nWants=network-online.target containerd.service\nRequires=docker.socket\n",
	"containerd.service": "[Unit]\nAfter=network.target local-fs.target dbus.service\n",
	// libvirt's modular daemons, 11.3.
	"virtnetworkd.service": "[Unit]\nAfter=network.target dbus.service apparmor.service remote-fs.target\n",
	"virtqemud.service":    "[Unit]\nAfter=network.target dbus.service apparmor.service remote-fs.target systemd-machined.service\nWants=systemd-machined.service\n",

	"online.service": "[Unit]\nAfter=network-online.target\nWants=network-online.target\n",
	"bare.service":   "[Unit]\nAfter=network-pre.target\n",
}

const orderedService = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"

// TestBootOrder enables everything that concerns the network at once on a host.
// No unit is left out because of a cycle, and those that start guests or use the
// network come after the service.
func TestBootOrder(t *testing.T) {
	t.Parallel()
	for name, bus := range map[string]host.Option{"dbus-daemon": host.Booted(), "dbus-broker": host.WithBroker()} {
		for _, firewall := range []string{"firewalld.service", "nftables.service"} {
			t.Run(name+" "+firewall, func(t *testing.T) {
				t.Parallel()
				p := newPackaged(t, bus)
				p.dpkg("-i", "/root/older.deb")
				p.unit("docker.socket", "[Socket]\nListenStream=/run/docker.sock\n[Install]\nWantedBy=sockets.target\n")
				enabled := []string{firewall, "systemd-networkd.service", "libvirtd.service", "docker.socket"}
				for unit, text := range ordered {
					p.unit(unit, text+orderedService)
					enabled = append(enabled, unit)
				}
				p.Must(append([]string{"systemctl", "--quiet", "enable"}, enabled...)...)
				// It waits for links that udev knows, and there is no udev.
				p.Must("systemctl", "--quiet", "disable", "systemd-networkd-wait-online.service")
				p.Reboot()
				for _, unit := range append(enabled, "virtfirewalld.service") {
					p.says("active", "systemctl", "is-active", unit)
				}
				p.before("network-pre.target", "network.target", "network-online.target", "systemd-networkd.service", "libvirtd.service",
					"virtnetworkd.service", "virtqemud.service", "docker.service", "online.service", "bare.service")
				p.after("dbus.service", firewall)
				p.noCycle()
			})
		}
	}
}

// after checks that units were ready when the service began to start.
func (p *packaged) after(units ...string) {
	p.t.Helper()
	began := p.stamp("virtfirewalld.service", "InactiveExit")
	for _, unit := range units {
		if ready := p.stamp(unit, "ActiveEnter"); ready == 0 || ready > began {
			p.t.Errorf("virtfirewalld began to start at %d µs, and %s was ready at %d µs", began, unit, ready)
		}
	}
}

// noCycle makes systemd look for cycles in what a boot starts: pid 1 reports
// one before there is a journal. That it would be found is shown by one.
func (p *packaged) noCycle() {
	p.t.Helper()
	cycle := func() bool {
		p.t.Helper()
		out, _ := p.Run("systemd-analyze", "verify", "--man=no", "default.target")
		if strings.Contains(out, "ordering cycle") {
			p.t.Log(out)
		}
		return strings.Contains(out, "ordering cycle")
	}
	if cycle() {
		p.t.Error("the boot has an ordering cycle")
	}
	p.unit("virtfirewalld.service.d/cycle.conf", "[Unit]\nAfter=online.service\n")
	if !cycle() {
		p.t.Error("a cycle that is there was not found")
	}
}
