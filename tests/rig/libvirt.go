package rig

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// IptablesVariants are those that a host may have its rules in.
var IptablesVariants = []string{"nft", "legacy"}

// SetIptables selects the iptables variant of a host.
func SetIptables(h *host.Host, variant string) {
	for _, name := range []string{"iptables", "ip6tables"} {
		h.Must("update-alternatives", "--set", name, "/usr/sbin/"+name+"-"+variant)
	}
}

// HostWithIptables makes a host whose iptables is of a variant.
func HostWithIptables(t testing.TB, variant string) *host.Host {
	t.Helper()
	h := host.New(t)
	SetIptables(h, variant)
	return h
}

// Libvirt is the real libvirt on a host.
type Libvirt struct {
	*host.Host
	Daemon  *host.Process
	Version string
}

// NewLibvirt starts libvirtd on a host of its own, with an iptables of a variant.
func NewLibvirt(t testing.TB, variant string) *Libvirt {
	t.Helper()
	h := HostWithIptables(t, variant)
	h.Bus()
	return LibvirtOn(t, h)
}

// LibvirtOn starts libvirtd, with no networks, on a host that has a bus.
func LibvirtOn(t testing.TB, h *host.Host) *Libvirt {
	t.Helper()
	p := &Libvirt{Host: h}
	version, err := p.Run("libvirtd", "--version") // libvirtd (libvirt) 9.0.0
	if err != nil {
		t.Fatalf("the real libvirt is needed; tests/setup.sh installs it: %v", err)
	}
	fields := strings.Fields(version)
	p.Version = fields[len(fields)-1]
	// polkit is not under test here.
	p.Must("sh", "-c", `rm -f /etc/libvirt/qemu/networks/*.xml /etc/libvirt/qemu/networks/autostart/*
		mkdir -p /var/lib/tftpboot
		printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >> /etc/libvirt/libvirtd.conf`)
	p.StartDaemon(t)
	return p
}

// StartDaemon starts libvirtd, and waits until it answers.
func (p *Libvirt) StartDaemon(t testing.TB) {
	t.Helper()
	p.Daemon = p.Start("libvirtd", "/usr/sbin/libvirtd")
	var err error
	if !Await(CallTimeout, func() bool { _, err = p.Virsh("net-list"); return err == nil }) {
		t.Fatalf("libvirtd does not answer: %v\n%s", err, p.Daemon.Log())
	}
}

// Kill ends libvirtd as an upgrade may: its rules, bridges and dnsmasq stay.
func (p *Libvirt) Kill() { _ = p.Daemon.Kill() }

// Virsh runs a command of virsh.
func (p *Libvirt) Virsh(args ...string) (string, error) {
	return p.Run(append([]string{"virsh", "-q", "-c", "network:///system"}, args...)...)
}

// StartNetwork defines a network and starts it.
func (p *Libvirt) StartNetwork(name, xml string) error {
	if err := p.withDocument("net-define", xml); err != nil {
		return err
	}
	_, err := p.Virsh("net-start", name)
	return err
}

// CreateNetwork starts a network that is gone when it ends.
func (p *Libvirt) CreateNetwork(xml string) error { return p.withDocument("net-create", xml) }

func (p *Libvirt) withDocument(verb, xml string) error {
	const path = "/tmp/network.xml"
	if err := p.WriteFile(path, []byte(xml), 0o644); err != nil {
		return err
	}
	_, err := p.Virsh(verb, path)
	return err
}

// EndNetwork ends a network.
func (p *Libvirt) EndNetwork(t testing.TB, name string) {
	t.Helper()
	_, err := p.Virsh("net-destroy", name)
	Must(t, err)
}

// Dump returns a network's document as libvirt has it.
func (p *Libvirt) Dump(t testing.TB, name string) string {
	t.Helper()
	xml, err := p.Virsh("net-dumpxml", name)
	Must(t, err)
	return xml
}

// Forget deletes networks' status documents, as a reboot does: libvirt has the
// networks no longer.
func (p *Libvirt) Forget(names ...string) {
	for _, name := range names {
		p.Must("rm", "/run/libvirt/network/"+name+".xml")
	}
}
