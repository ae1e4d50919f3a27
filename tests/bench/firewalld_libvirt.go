package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// walledFew is how many bridges firewalld 2.3 can bear: it has a rule for each pair
// of interfaces, and at ninety takes two seconds for one more.
const walledFew = 50

// measureFirewalldReleases has the firewalld of each release bind bridges, for the
// service and for libvirt.
func measureFirewalldReleases(bin string, s *section) error {
	s.title = fmt.Sprintf("%d bridges beside firewalld, and libvirt's way", walledFew)
	s.how = fmt.Sprintf("As with %d, beside firewalld as Debian 12 and 13 have it, with its nftables backend. ", walled) +
		"\"libvirt\" is the real one of the same release, without the service: it puts a bridge into its zone at each net-create, " +
		"and after a reload writes all its rules anew as well, network by network. Version 9.0 has iptables for them, 11.3 here nftables."
	tree, err := exec.Command("tests/trixie.sh", "--path").Output()
	if err != nil {
		return fmt.Errorf("finding trixie's tree: %w", err)
	}
	for _, root := range []string{"/", strings.TrimSpace(string(tree))} {
		if err := compareWalls(bin, root, s); err != nil {
			return fmt.Errorf("firewalld in %s: %w", root, err)
		}
	}
	return nil
}

// compareWalls measures the service, and libvirt without it, beside the firewalld of
// a release.
func compareWalls(bin, root string, s *section) error {
	for _, measure := range []func(walls, *bed) error{walls.ours, walls.libvirts} {
		err := withBedOf(bin, host.Config{Root: root}, func(b *bed) error {
			version, err := b.Run("firewall-offline-cmd", "--version")
			if err != nil {
				return fmt.Errorf("reading firewalld's version: %w", err)
			}
			what := fmt.Sprintf("firewalld %s, %d bridges", strings.TrimSpace(version), walledFew)
			return measure(walls{backend: "nftables", count: walledFew, section: s, what: what}, b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// libvirts has the real libvirt bind the bridges, with its nftables backend where it
// has one.
func (w walls) libvirts(b *bed) error {
	b.Firewalld(w.backend)
	l := &libvirt{bed: b}
	version, err := l.prepare()
	if err != nil {
		return err
	}
	fields := strings.Fields(version)
	w.what += ", libvirt " + fields[len(fields)-1]
	t, err := w.startLibvirt(l)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := l.createMany(w.count); err != nil {
		return err
	}
	var each times
	for _, x := range t.take() {
		if x.ofFirewalld && x.member == "changeZoneOfInterface" {
			each = append(each, x.ended.Sub(x.called))
		}
	}
	if len(each) != w.count {
		return fmt.Errorf("libvirt bound %d of %d bridges", len(each), w.count)
	}
	w.section.add(w.what+", a bridge: firewalld's share", each.String())
	_, _, err = w.allAgain(b, t)
	return err
}

// startLibvirt starts libvirtd, and listens to what is asked of firewalld.
func (w walls) startLibvirt(l *libvirt) (*tap, error) {
	conf := l.WriteFile("/etc/libvirt/network.conf", []byte("firewall_backend = \"nftables\"\n"), 0o644)
	if err := errors.Join(conf, l.skipChecksums()); err != nil {
		return nil, err
	}
	if _, err := l.start(); err != nil {
		return nil, err
	}
	return l.listen("") // libvirtd has no name on the bus
}
