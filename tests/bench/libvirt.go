package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	libvirtNetworks = 100
	libvirtRounds   = 10
	libvirtTimeout  = 3 * time.Minute // a restart with 100 networks takes 40 s here
)

// libvirt is the real daemon on a host where our service does not run.
type libvirt struct {
	*bed
	daemon *host.Process
}

// measureLibvirt starts networks with the libvirt that the machine has.
func measureLibvirt(bin string, s *section) error {
	s.title = "The real libvirt"
	return withBed(bin, func(b *bed) error {
		l := &libvirt{bed: b}
		version, err := l.prepare()
		if err != nil {
			return err
		}
		s.how = fmt.Sprintf(`%s with iptables-nft, without our service, no firewalld. "net-start" is one virsh process from its start to its end:
besides the rules that is virsh itself, the bridge and dnsmasq. The same network with forward mode open, for which libvirt has no rules,
shows what that is. %d of each, taking turns. "Restart" is from the start of a new libvirtd, after SIGTERM ended the one before, to the
first answer to a virsh net-list, with the bridges and dnsmasq processes there; before that libvirt writes all rules anew.`,
			version, libvirtRounds)
		if _, err := l.start(); err != nil {
			return err
		}
		nat, open := numbered(extra), numbered(extra+1)
		if err := errors.Join(l.define(nat, nat.xml(libvirtPort)), l.define(open, open.inMode("open"))); err != nil {
			return err
		}
		if err := l.starts(s, 0); err != nil {
			return err
		}
		if err := l.restart(s, 0); err != nil {
			return err
		}
		if err := l.grow(libvirtNetworks); err != nil {
			return err
		}
		if err := l.starts(s, libvirtNetworks); err != nil {
			return err
		}
		return l.restart(s, libvirtNetworks)
	})
}

// prepare configures libvirtd, and returns its version.
func (l *libvirt) prepare() (version string, err error) {
	out, err := l.Run("libvirtd", "--version")
	if err != nil {
		return "", fmt.Errorf("the real libvirt is needed; tests/setup.sh installs it: %w", err)
	}
	if err := l.useIptablesNFT(); err != nil {
		return "", err
	}
	// polkit is not what is measured here.
	_, err = l.Run("sh", "-c", `rm -f /etc/libvirt/qemu/networks/*.xml /etc/libvirt/qemu/networks/autostart/*
		printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >> /etc/libvirt/libvirtd.conf`)
	return strings.TrimSpace(out), err
}

// start starts libvirtd and returns how long it took until it answered.
func (l *libvirt) start() (time.Duration, error) {
	begin := time.Now()
	l.daemon = l.Start("libvirtd", "/usr/sbin/libvirtd")
	for time.Since(begin) < libvirtTimeout && l.daemon.Running() {
		if _, err := l.virsh("net-list"); err == nil {
			return time.Since(begin), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("starting libvirtd: no answer\n%s", l.daemon.Log())
}

func (l *libvirt) virsh(args ...string) (string, error) {
	return l.Run(append([]string{"virsh", "-q", "-c", "network:///system"}, args...)...)
}

func (l *libvirt) define(n network, xml string) error {
	const path = "/root/network.xml"
	if err := l.WriteFile(path, []byte(xml), 0o644); err != nil {
		return err
	}
	_, err := l.virsh("net-define", path)
	return err
}

// grow starts networks one after the other.
func (l *libvirt) grow(count int) error {
	for i := range count {
		n := numbered(i)
		if err := l.define(n, n.xml(libvirtPort)); err != nil {
			return err
		}
		if _, err := l.virsh("net-start", n.name); err != nil {
			return err
		}
	}
	return nil
}

// starts measures net-start, with rules and without, beside what is there.
func (l *libvirt) starts(s *section, count int) error {
	nat, open := numbered(extra), numbered(extra+1)
	took := map[network]times{}
	for range libvirtRounds {
		for _, n := range []network{nat, open} {
			begin := time.Now()
			if _, err := l.virsh("net-start", n.name); err != nil {
				return err
			}
			took[n] = append(took[n], time.Since(begin))
			if _, err := l.virsh("net-destroy", n.name); err != nil {
				return err
			}
		}
	}
	s.add(fmt.Sprintf("net-start beside %d", count), took[nat].String())
	s.add(fmt.Sprintf("net-start beside %d, mode open", count), took[open].String())
	return nil
}

// restart measures how long libvirtd takes over its networks, and sees that it
// writes their rules again. It is done once: it takes long, and several were seen
// to differ by a tenth.
func (l *libvirt) restart(s *section, count int) error {
	if err := l.daemon.Stop(); err != nil {
		return err
	}
	if count > 0 {
		n := numbered(count / 2)
		if _, err := l.Run("iptables", "-D", "LIBVIRT_FWO", "-s", n.subnet(), "-i", n.bridge, "-j", "ACCEPT"); err != nil {
			return err
		}
	}
	took, err := l.start()
	if err != nil {
		return err
	}
	rules, err := l.Run("iptables", "-S", "LIBVIRT_FWO")
	if err != nil {
		return err
	}
	if n := strings.Count(rules, "-j ACCEPT"); n != count {
		return fmt.Errorf("restarting libvirtd: it answers with the rules of %d networks, not %d", n, count)
	}
	s.add(fmt.Sprintf("restart with %d, once", count), milliseconds(took))
	return nil
}
