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
// the time from the service's by what passes the bus.
func measureFirewalldScale(bin string, s *section) error {
	s.title = fmt.Sprintf("%d bridges beside firewalld", walled)
	s.how = "Bridges bound one after another with their networks, by AddNetwork, and all again after `firewall-cmd --reload`. " +
		"What passes the bus says how long the service waited for firewalld's answers; the rest is its own, rules and all."
	for _, backend := range []string{"nftables", "iptables"} {
		err := withBed(bin, func(b *bed) error { return b.bindMany(backend, s) })
		if err != nil {
			return fmt.Errorf("firewalld with %s: %w", backend, err)
		}
	}
	return nil
}

func (b *bed) bindMany(backend string, s *section) error {
	b.Firewalld(backend)
	if _, err := b.start(); err != nil {
		return err
	}
	if err := b.call("InstallZones", options{}); err != nil {
		return err
	}
	if err := b.addBridges(0, walled); err != nil {
		return err
	}
	t, err := b.listen()
	if err != nil {
		return err
	}
	defer t.Close()
	if err := b.oneByOne(backend, s, t); err != nil {
		return err
	}
	return b.allAgain(backend, s, t)
}

func (b *bed) oneByOne(backend string, s *section, t *tap) error {
	if err := b.addRange(0, walled); err != nil {
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
	if len(own) != walled {
		return fmt.Errorf("%d of %d calls were heard", len(own), walled)
	}
	s.add("firewalld with "+backend+", a bridge: firewalld's share", firewalld.String())
	s.add("firewalld with "+backend+", a bridge: the service's, rules included", own.String())
	return nil
}

func (b *bed) allAgain(backend string, s *section, t *tap) error {
	before := t.lastReload()
	if out, err := b.Run("firewall-cmd", "--reload"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for deadline := time.Now().Add(callTimeout); ; time.Sleep(20 * time.Millisecond) {
		n, err := b.countBound()
		if err != nil {
			return err
		}
		if n == walled {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d bridges are bound again", n, walled)
		}
	}
	time.Sleep(100 * time.Millisecond)
	begin, end := t.lastReload(), time.Time{}
	if !begin.After(before) {
		return fmt.Errorf("firewalld did not tell of its reload")
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
	if bound != walled {
		return fmt.Errorf("%d of %d bridges were bound again by a call", bound, walled)
	}
	total, theirs := end.Sub(begin), waited(passed, begin, end)
	s.add("firewalld with "+backend+", all after a reload", milliseconds(total))
	s.add("firewalld with "+backend+", all after a reload: waiting for firewalld", milliseconds(theirs))
	own := (total - theirs) / walled
	s.limit("firewalld with "+backend+", after a reload: the service's share for each", milliseconds(own), milliseconds(mostOwn), own <= mostOwn)
	return nil
}

// countBound asks firewalld itself.
func (b *bed) countBound() (int, error) {
	var interfaces []string
	err := b.bus.Object(firewalldName, "/org/fedoraproject/FirewallD1").Call(firewalldName+".zone.getInterfaces", 0, "libvirt").Store(&interfaces)
	return len(interfaces), err
}
