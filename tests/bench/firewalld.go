package main

import (
	"fmt"
	"time"
)

const (
	walled = 200 // bridges beside firewalld

	// mostOwn is what is the service's own of a bridge that is bound: all that
	// it does not wait for firewalld's answers.
	mostOwn = time.Millisecond
)

// measureFirewalldScale has firewalld bind many bridges, and tells its share of
// the time from the service's, and from libvirt's, by what passes the bus.
func measureFirewalldScale(bin string, s *section) error {
	s.title = fmt.Sprintf("%d bridges beside firewalld", walled)
	s.how = "Bridges bound one after another with their networks, by AddNetwork, and all again after `firewall-cmd --reload`. " +
		"What passes the bus says how long the service waited for firewalld's answers; the rest is its own, rules and all."
	for _, backend := range []string{"nftables", "iptables"} {
		w := walls{backend: backend, count: walled, section: s, what: "firewalld with " + backend}
		if err := withBed(bin, w.ours); err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
	}
	return nil
}

// walls is firewalld with many bridges.
type walls struct {
	backend string
	count   int
	section *section
	what    string // it is called
}

func (w walls) ours(b *bed) error {
	b.Firewalld(w.backend)
	if _, err := b.start(); err != nil {
		return err
	}
	if err := b.call("InstallZones", options{}); err != nil {
		return err
	}
	if err := b.addBridges(0, w.count); err != nil {
		return err
	}
	t, err := b.listen(managerName)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := w.oneByOne(b, t); err != nil {
		return err
	}
	total, theirs, err := w.allAgain(b, t)
	if err != nil {
		return err
	}
	own := (total - theirs) / time.Duration(w.count)
	w.section.limit(w.what+", after a reload: the service's share for each", milliseconds(own), milliseconds(mostOwn), own <= mostOwn)
	return nil
}

func (w walls) oneByOne(b *bed, t *tap) error {
	if err := b.addRange(0, w.count); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // until the last answer is heard
	passed := t.take()
	var own, firewalld times
	for _, x := range passed {
		if !x.ofFirewalld && x.member == "AddNetworkFromXML" {
			theirs := waited(passed, x.called, x.ended)
			own, firewalld = append(own, x.ended.Sub(x.called)-theirs), append(firewalld, theirs)
		}
	}
	if len(own) != w.count {
		return fmt.Errorf("%d of %d calls were heard", len(own), w.count)
	}
	w.section.add(w.what+", a bridge: firewalld's share", firewalld.String())
	w.section.add(w.what+", a bridge: the service's, rules included", own.String())
	return nil
}

// allAgain has firewalld reload, and returns how long it took until all bridges
// were bound again, and how much of that was firewalld's.
func (w walls) allAgain(b *bed, t *tap) (total, theirs time.Duration, err error) {
	before := t.lastReload()
	t.take()
	if out, err := b.Run("firewall-cmd", "--reload"); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, out)
	}
	for deadline := time.Now().Add(libvirtTimeout); ; time.Sleep(20 * time.Millisecond) {
		n, err := b.countBound()
		if err != nil {
			return 0, 0, err
		}
		if n == w.count {
			break
		}
		if time.Now().After(deadline) {
			return 0, 0, fmt.Errorf("%d of %d bridges are bound again", n, w.count)
		}
	}
	time.Sleep(100 * time.Millisecond)
	begin, end := t.lastReload(), time.Time{}
	if !begin.After(before) {
		return 0, 0, fmt.Errorf("firewalld did not tell of its reload")
	}
	passed := t.take()
	bound := 0
	for _, x := range passed {
		if x.ofFirewalld && x.member == "changeZoneOfInterface" && x.called.After(begin) {
			bound++
			if x.ended.After(end) {
				end = x.ended
			}
		}
	}
	if bound != w.count {
		return 0, 0, fmt.Errorf("%d of %d bridges were bound again by a call", bound, w.count)
	}
	total, theirs = end.Sub(begin), waited(passed, begin, end)
	w.section.add(w.what+", all after a reload", milliseconds(total))
	w.section.add(w.what+", all after a reload: waiting for firewalld", milliseconds(theirs))
	return total, theirs, nil
}

// countBound asks firewalld itself.
func (b *bed) countBound() (int, error) {
	var interfaces []string
	err := b.bus.Object(firewalldName, "/org/fedoraproject/FirewallD1").Call(firewalldName+".zone.getInterfaces", 0, "libvirt").Store(&interfaces)
	return len(interfaces), err
}
