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

// details describe a network in authorisation requests, as it is before or
// after a change.
type details struct {
	name, bridge, mode, zone                 string
	subnets, devices, natAddresses, natPorts string // "" for none
}

func detailsOf(n network.Network) details {
	return details{
		name: n.Name, bridge: n.Bridge, mode: string(n.Mode), zone: n.Zone,
		subnets: sortedText(n.Subnets()), devices: strings.Join(slices.Sorted(slices.Values(n.Devices)), " "),
		natAddresses: strings.TrimSpace(n.NATAddresses.String() + " " + n.NATAddresses6.String()), natPorts: n.NATPorts.String(),
	}
}

// sortedText returns the subnets in one canonical order: polkit rules compare
// text.
func sortedText(subnets []netip.Prefix) string {
	subnets = slices.SortedFunc(slices.Values(subnets), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	texts := make([]string, len(subnets))
	for i, p := range subnets {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

// toMap returns the details as an Authorizer gets them. before adds what a
// change starts from; it is nil for a network that is added or removed.
func (d details) toMap(before *details) map[string]string {
	m := d.values()
	m["network"] = printable(d.name)
	if before != nil {
		for key, value := range before.values() {
			m["old_"+key] = value
		}
	}
	return m
}

// values are the details that a change can change.
func (d details) values() map[string]string {
	return map[string]string{
		"bridge":        printable(d.bridge),
		"forward_mode":  d.mode,
		"zone":          printable(d.zone),
		"subnets":       d.subnets,
		"devices":       printable(d.devices),
		"nat_addresses": d.natAddresses,
		"nat_ports":     d.natPorts,
	}
}

// printable keeps a caller's text from adding lines to the dialogue that a
// person sees. Names that networks can have stay as they are.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// networkRequests returns what a change of a network needs authorisation for:
// to manage what it would become, and to manage what it is, so that a rule about
// a bridge or a zone need not compare the two. A zone of the host's own, before
// or after, needs authorisation to manage zones as well. before is nil for a
// network that does not exist, after for one that is removed.
func networkRequests(name string, before *service.Status, after *network.Network) []authzRequest {
	var requests []authzRequest
	var old *details
	if before != nil {
		d := detailsOf(before.Network)
		old = &d
	}
	if after != nil {
		requests = appendNetwork(requests, detailsOf(*after), old)
	}
	if old != nil {
		start := old
		if after == nil {
			start = nil
		}
		requests = appendNetwork(requests, *old, start)
		if bound := *old; before.BoundZone != "" && before.BoundZone != old.zone {
			bound.zone = before.BoundZone
			requests = appendZone(requests, bound, start)
		}
	}
	if requests == nil {
		requests = []authzRequest{{ActionManageNetworks, details{name: name}.toMap(nil)}}
	}
	return requests
}

func appendNetwork(requests []authzRequest, d details, before *details) []authzRequest {
	return appendZone(appendNew(requests, authzRequest{ActionManageNetworks, d.toMap(before)}), d, before)
}

func appendZone(requests []authzRequest, d details, before *details) []authzRequest {
	if d.zone == "" || d.zone == "libvirt" || d.zone == "libvirt-routed" {
		return requests
	}
	return appendNew(requests, authzRequest{ActionManageZones, d.toMap(before)})
}

func appendNew(requests []authzRequest, r authzRequest) []authzRequest {
	if contains(requests, r) {
		return requests
	}
	return append(requests, r)
}

func contains(requests []authzRequest, r authzRequest) bool {
	return slices.ContainsFunc(requests, func(o authzRequest) bool { return r.action == o.action && maps.Equal(r.details, o.details) })
}

// zoneRequests returns what moving a bridge to a zone needs authorisation for.
func zoneRequests(bridge, zone string, before *service.Status) []authzRequest {
	if before == nil {
		return []authzRequest{{ActionManageZones, details{bridge: bridge, zone: zone}.toMap(nil)}}
	}
	old := detailsOf(before.Network)
	old.zone = before.BoundZone
	next := old
	next.zone = zone
	return appendNew([]authzRequest{{ActionManageZones, next.toMap(&old)}}, authzRequest{ActionManageZones, old.toMap(&old)})
}

// change is a call that changes one network or its bridge's zone.
type change struct {
	before   *service.Status                             // the network when the call arrived; nil for none
	requests func(before *service.Status) []authzRequest // what it needs authorisation for
}

// expect returns the check by which the service compares what was approved with
// what it would do. User 0 needs no approval.
func (x change) expect(c *call) service.Expect {
	if c.user == 0 {
		return nil
	}
	approved := x.requests(x.before)
	return func(before *service.Status) error {
		if before != nil && x.before != nil && before.BoundZone == "" {
			// A reload of firewalld takes bridges out of their zones for a moment,
			// and so does the change itself: that needs less than was approved.
			now := *before
			now.BoundZone, before = x.before.BoundZone, &now
		}
		for _, r := range x.requests(before) {
			if !contains(approved, r) {
				return refuse(errAccessDenied, "%s was changed by another while this call was being authorised: look at it, and call again", objectName(r))
			}
		}
		return nil
	}
}

func objectName(r authzRequest) string {
	if name := r.details["network"]; name != "" {
		return "network " + name
	}
	return "bridge " + r.details["bridge"]
}

// before returns a network's status before a change of it; nil for none.
func (ex *exports) before(name string) *service.Status {
	if st, ok := ex.api.NetworkStatus(name); ok {
		return &st
	}
	return nil
}
