package dbus

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// side is a network as one side of a change has it.
type side struct {
	name, bridge, mode, zone                 string
	subnets, devices, natAddresses, natPorts string // "" for none
}

func sideOf(n network.Network) side {
	return side{
		name: n.Name, bridge: n.Bridge, mode: string(n.Mode), zone: n.Zone,
		subnets: sorted(n.Subnets()), devices: strings.Join(slices.Sorted(slices.Values(n.Devices)), " "),
		natAddresses: strings.TrimSpace(n.NATAddresses.String() + " " + n.NATAddresses6.String()), natPorts: n.NATPorts.String(),
	}
}

// sorted writes subnets in one way, whatever their order: rules compare texts.
func sorted(subnets []netip.Prefix) string {
	subnets = slices.SortedFunc(slices.Values(subnets), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	texts := make([]string, len(subnets))
	for i, p := range subnets {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

// details are what an Authorizer is told of a side. before adds what a change
// starts from; nil where there is nothing before, or nothing after.
func (x side) details(before *side) map[string]string {
	d := x.values()
	d["network"] = printable(x.name)
	if before != nil {
		for key, value := range before.values() {
			d["old_"+key] = value
		}
	}
	return d
}

// values are what may differ between the two sides of a change.
func (x side) values() map[string]string {
	return map[string]string{
		"bridge":        printable(x.bridge),
		"forward_mode":  x.mode,
		"zone":          printable(x.zone),
		"subnets":       x.subnets,
		"devices":       printable(x.devices),
		"nat_addresses": x.natAddresses,
		"nat_ports":     x.natPorts,
	}
}

// printable keeps what a caller made up from writing lines of its own into the
// dialogue that a person sees. Names that networks can have stay as they are.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// networkAsks are what a change of a network needs the right to: to manage what
// it would be, and to manage what it is, so that a rule about a bridge or a zone
// needs to look at one side only. A zone of the host's own, on either side,
// needs the right to manage zones as well. before is nil for a network that is
// not there, after for one that goes.
func networkAsks(name string, before *service.Status, after *network.Network) []ask {
	var asks []ask
	var old *side
	if before != nil {
		x := sideOf(before.Network)
		old = &x
	}
	if after != nil {
		asks = appendSide(asks, sideOf(*after), old)
	}
	if old != nil {
		start := old
		if after == nil {
			start = nil
		}
		asks = appendSide(asks, *old, start)
		if bound := *old; before.BoundZone != "" && before.BoundZone != old.zone {
			bound.zone = before.BoundZone
			asks = appendZone(asks, bound, start)
		}
	}
	if asks == nil {
		asks = []ask{{ActionManageNetworks, side{name: name}.details(nil)}}
	}
	return asks
}

func appendSide(asks []ask, x side, before *side) []ask {
	return appendZone(appendNew(asks, ask{ActionManageNetworks, x.details(before)}), x, before)
}

func appendZone(asks []ask, x side, before *side) []ask {
	if x.zone == "" || x.zone == "libvirt" || x.zone == "libvirt-routed" {
		return asks
	}
	return appendNew(asks, ask{ActionManageZones, x.details(before)})
}

func appendNew(asks []ask, a ask) []ask {
	if contains(asks, a) {
		return asks
	}
	return append(asks, a)
}

func contains(asks []ask, a ask) bool {
	return slices.ContainsFunc(asks, func(b ask) bool { return a.action == b.action && maps.Equal(a.details, b.details) })
}

// zoneAsks are what moving a bridge to a zone needs the right to.
func zoneAsks(bridge, zone string, before *service.Status) []ask {
	if before == nil {
		return []ask{{ActionManageZones, side{bridge: bridge, zone: zone}.details(nil)}}
	}
	old := sideOf(before.Network)
	old.zone = before.BoundZone
	next := old
	next.zone = zone
	return appendNew([]ask{{ActionManageZones, next.details(&old)}}, ask{ActionManageZones, old.details(&old)})
}

// change is a call that changes one network or its bridge's zone.
type change struct {
	before *service.Status                    // what it was when the call came; nil for none
	asks   func(before *service.Status) []ask // what it needs the right to
}

// expect makes the service compare what was approved with what it would do.
// User 0 needs no approval.
func (x change) expect(c *call) service.Expect {
	if c.user == 0 {
		return nil
	}
	approved := x.asks(x.before)
	return func(before *service.Status) error {
		if before != nil && x.before != nil && before.BoundZone == "" {
			// firewalld's reload takes bridges out of their zones for a moment,
			// and so does the change itself: that is less than was approved.
			now := *before
			now.BoundZone, before = x.before.BoundZone, &now
		}
		for _, a := range x.asks(before) {
			if !contains(approved, a) {
				return refuse(errAccessDenied, "%s was changed by another while this call was being authorised: look at it, and call again", what(a))
			}
		}
		return nil
	}
}

func what(a ask) string {
	if name := a.details["network"]; name != "" {
		return "network " + name
	}
	return "bridge " + a.details["bridge"]
}

func (s *Server) before(name string) *service.Status {
	if st, ok := s.api.NetworkStatus(name); ok {
		return &st
	}
	return nil
}
