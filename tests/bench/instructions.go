package main

import (
	"fmt"
	"math"
	"path/filepath"
	"time"
)

const (
	mostInstructions = 8900 // of a packet from or to a guest
	mostForOthers    = 700  // more than conntrack alone, of a packet that no network governs
)

// bareRules are the least that NAT takes: conntrack, and one rule.
var bareRules = fmt.Sprintf(`table ip bare {
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname wan0 ip saddr %s masquerade
	}
}
`, natNetwork.prefix())

// measureInstructions counts what a forwarded packet takes the kernel. It needs a
// machine whose clock counts instructions, one a nanosecond: make bench-instructions.
func measureInstructions(bin string, s *section) error {
	s.title = "Instructions of a forwarded packet"
	s.how = fmt.Sprintf(`From a guest or another machine to the outside, and back. One UDP flow, IPv4, %d packets of the smallest size
from the kernel's packet generator, on an emulated processor that counts. What generator, sink and a veth pair take
is subtracted. Each figure is the least of %d runs that lost no packet; in brackets the ratio to conntrack and one
masquerade rule.`, pktgenPackets, pktgenRuns)
	return withBed(bin, func(b *bed) error {
		c, err := newCourse(b)
		if err != nil {
			return err
		}
		if err := c.calibrate(); err != nil {
			return err
		}
		s.add("subtracted", fmt.Sprint(c.share.Nanoseconds()))
		bare, err := c.withoutService(s)
		if err != nil {
			return err
		}
		return c.withService(s, bare)
	})
}

// withoutService measures without rules, and with the least that NAT takes. It
// returns the latter.
func (c *course) withoutService(s *section) (bare costs, err error) {
	flows := []flow{c.nat, c.routed, c.plain, c.bridged}
	none, err := c.measure(flows...)
	if err != nil {
		return nil, err
	}
	if _, err := c.RunInput(bareRules, "nft", "-f", "-"); err != nil {
		return nil, err
	}
	if bare, err = c.measure(flows...); err != nil {
		return nil, err
	}
	for _, f := range flows {
		s.add("no rules: "+f.name, none.text(f, bare))
	}
	for _, f := range flows {
		s.add("conntrack and one masquerade rule: "+f.name, bare.text(f, bare))
	}
	_, err = c.Run("nft", "delete", "table", "ip", "bare")
	return bare, err
}

// withService measures with one network, translated and then routed, and with many.
func (c *course) withService(s *section, bare costs) error {
	if _, err := c.start(); err != nil {
		return err
	}
	if err := c.add(natNetwork, nil); err != nil {
		return err
	}
	if err := c.limited(s, "1 network", bare, c.nat, c.plain, c.bridged); err != nil {
		return err
	}
	if err := c.remove(natNetwork, nil); err != nil {
		return err
	}
	if err := c.addXML(routedNetwork.inMode("route"), nil); err != nil {
		return err
	}
	if err := c.limited(s, "1 network", bare, c.routed); err != nil {
		return err
	}
	if err := c.remove(routedNetwork, nil); err != nil {
		return err
	}
	if err := c.restartWithMany(); err != nil {
		return err
	}
	return c.limited(s, "1,000 networks", bare, c.nat, c.routed, c.plain, c.bridged)
}

// restartWithMany puts all networks into the kernel at once: one after the other
// takes an emulated processor the better part of an hour.
func (c *course) restartWithMany() error {
	if err := c.stop(); err != nil {
		return err
	}
	if err := c.addBridges(2, many); err != nil {
		return err
	}
	if err := c.store(many, libvirtPort); err != nil {
		return err
	}
	file := filepath.Join(storedIn, routedNetwork.name+".xml")
	if err := c.WriteFile(file, []byte(routedNetwork.inMode("route")), 0o644); err != nil {
		return err
	}
	took, err := c.start()
	fmt.Printf("  (started with %d networks after %s)\n", many, took)
	return err
}

// limited measures flows and adds them with their limits.
func (c *course) limited(s *section, what string, bare costs, flows ...flow) error {
	time.Sleep(time.Second) // what follows a change in the background
	all, err := c.measure(flows...)
	if err != nil {
		return err
	}
	for _, f := range flows {
		is, least := all[f.name], bare[f.name]
		limit := fmt.Sprint(mostInstructions)
		kept := max(is.out, is.in) <= mostInstructions
		if f == c.plain || f == c.bridged {
			limit = fmt.Sprintf("%d more than that rule", mostForOthers)
			kept = max(is.out-least.out, is.in-least.in) <= mostForOthers
		}
		s.limit(what+": "+f.name, all.text(f, bare), limit, kept)
	}
	return nil
}

// text returns what a flow takes, compared with the least that NAT takes.
func (c costs) text(f flow, bare costs) string {
	is, least := c[f.name], bare[f.name]
	return fmt.Sprintf("out %d (%.3f), in %d (%.3f)", is.out, ratio(is.out, least.out), is.in, ratio(is.in, least.in))
}

func ratio(a, b int) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}
