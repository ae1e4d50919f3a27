package main

import (
	"fmt"
	"strings"
)

// forwardLibvirt lets the real libvirt forward, with a backend.
func forwardLibvirt(backend string) func(b *bed, count int) error {
	return func(b *bed, count int) error {
		l := &libvirt{bed: b}
		if _, err := l.prepare(); err != nil {
			return err
		}
		if err := l.WriteFile("/etc/libvirt/network.conf", []byte("firewall_backend = \""+backend+"\"\n"), 0o644); err != nil {
			return err
		}
		if err := l.skipChecksums(); err != nil {
			return err
		}
		if _, err := l.start(); err != nil {
			return err
		}
		return l.createMany(count)
	}
}

// skipChecksums leaves tc's checksum action out: a kernel without it keeps
// libvirt's nftables backend from starting a network, and no forwarded packet
// meets it.
func (l *libvirt) skipChecksums() error {
	const tc = "/usr/sbin/tc"
	if _, err := l.Run("mv", tc, tc+".real"); err != nil {
		return err
	}
	const script = "#!/bin/sh\ncase \"$*\" in *\"action csum\"*) exit 0 ;; esac\nexec " + tc + ".real \"$@\"\n"
	return l.WriteFile(tc, []byte(script), 0o755)
}

// createMany starts networks.
func (l *libvirt) createMany(count int) error {
	const path = "/root/network.xml"
	for i := range count {
		if err := l.WriteFile(path, []byte(numbered(i).forwardingXML()), 0o644); err != nil {
			return err
		}
		if _, err := l.virsh("net-create", path); err != nil {
			return err
		}
	}
	out, err := l.virsh("net-list", "--name")
	if err != nil {
		return err
	}
	if n := len(strings.Fields(out)); n != count {
		return fmt.Errorf("libvirt has started %d networks, not %d", n, count)
	}
	return nil
}

// forwardingXML returns the network without what no forwarded packet meets and what
// takes libvirt long to start: dnsmasq. Without STP a port forwards at once.
func (n network) forwardingXML() string {
	before, rest, _ := strings.Cut(n.xml(libvirtPort), "<dhcp>")
	_, after, _ := strings.Cut(rest, "</dhcp>")
	return strings.NewReplacer("stp='on'", "stp='off'", "  <ip ", "  <dns enable='no'/>\n  <ip ").Replace(before + after)
}
