package ruleset

import (
	"net/netip"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// standard reports whether elements of the shared sets say all that the network may do.
// The sets have room for mostSubnets of each network.
func (c compiler) standard() bool {
	count := map[string]int{}
	for _, p := range c.subnets {
		digit := familyOf(p).digit
		if count[digit]++; !inSets(p) || count[digit] > mostSubnets {
			return false
		}
	}
	return len(c.net.Devices) == 0
}

// standardNAT reports whether what is translated gets the host's address.
func (c compiler) standardNAT() bool {
	return c.net.NATAddresses.IsZero() && c.net.NATAddresses6.IsZero() && c.ports() == standardPorts()
}

// elements collects the elements of one network: by the bridge's index while it
// exists, and by each of its names always.
type elements struct {
	compiler
	index   int
	bridges []string
	all     []Element
}

// add adds an element to both halves of a set.
func (e *elements) add(set string, like Element) {
	like.Comment = comment("network %s", e.net.Name)
	if e.index != 0 {
		id := like
		id.Set, id.Index, id.Name = set+"_id", e.index, e.net.Bridge
		e.all = append(e.all, id)
	}
	for _, name := range e.bridges {
		named := like
		named.Set, named.Name = set+"_name", name
		e.all = append(e.all, named)
	}
}

func (e *elements) bridge(set, chain string) { e.add(set, Element{Goto: chain}) }

// subnet adds a subnet to the set of its family.
func (e *elements) subnet(set string, p netip.Prefix) {
	e.add(set+familyOf(p).digit, Element{Addresses: [2]netip.Addr{p.Addr()}})
}

// shared adds what each network has.
func (e *elements) shared() {
	e.bridge(setGuests, "")
	e.bridge(setSameBridge, "")
}

// sides adds what the network's subnets may do.
func (e *elements) sides() {
	var has4, has6 bool
	for _, p := range e.subnets {
		has4, has6 = has4 || p.Addr().Is4(), has6 || p.Addr().Is6()
		if e.net.Mode == network.ModeIsolated {
			e.subnet(setIsolated, p)
			continue
		}
		e.subnet(setMayLeave, p)
		e.subnet(setReplies, p)
		if e.translates(p) {
			e.subnet(setTranslated, p)
		} else {
			e.subnet(setAnyone, p)
		}
	}
	if has4 {
		e.add(setFamilies, Element{})
	}
	if has6 {
		e.add(setFamilies, Element{IPv6: true})
	}
	e.bridge(setRefusedFrom, "")
	e.bridge(setRefusedTo, "")
}

// masqueraded adds the subnets that go out under the host's address, and the pairs of
// them between which nothing is translated: each with itself, and in both directions
// with those that are behind a guest.
func (e *elements) masqueraded() {
	for _, p := range e.subnets {
		if !e.translates(p) {
			continue
		}
		e.subnet(setMasqueraded, p)
		pair := func(to netip.Prefix) {
			e.add(setUntranslated+familyOf(p).digit, Element{Addresses: [2]netip.Addr{p.Addr(), to.Addr()}})
		}
		pair(p)
		for _, to := range e.net.UntranslatedTo(p) {
			pair(to)
		}
	}
}
