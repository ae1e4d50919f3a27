package service

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// hostView is what networks look up of the host, and what it refuses them.
type hostView struct {
	hostLinks Links
	networks  *networks
	log       logger
	workers   *workers
}

// look finds a network's bridge: the link of index known, if that is a bridge
// still, else what has the bridge's name and is not taken by another network.
func (v *hostView) look(name string, known int, taken func(index int) bool) (bridge, error) {
	named, found, err := v.hostLinks.Query(name)
	if err != nil {
		return bridge{}, errorf(ApplyFailed, "looking at bridge %s: %w", name, err)
	}
	if known != 0 && (!found || named.Index != known) {
		own, alive, err := v.hostLinks.QueryIndex(known)
		if err != nil {
			return bridge{}, errorf(ApplyFailed, "looking at bridge %s: %w", name, err)
		}
		if alive && own.Bridge {
			return v.linked(name, own, found), nil
		}
	}
	switch {
	case !found:
		return bridge{}, nil
	case !named.Bridge:
		return bridge{stray: finding.NotABridge}, nil
	}
	if taken(named.Index) {
		return bridge{stray: finding.BridgeTaken}, nil
	}
	return v.linked(name, named, false), nil
}

// takenFrom reports of a link whether another network than the named one has it.
func (v *hostView) takenFrom(network string) func(index int) bool {
	return func(index int) bool {
		return slices.ContainsFunc(v.networks.ByIndex(index), func(m *managed) bool { return m.net.Name != network })
	}
}

// byNobody is for links that are compared later.
func byNobody(int) bool { return false }

// linked is a bridge that has its link; lost says that something else has the
// name that the network says.
func (v *hostView) linked(name string, l watch.Link, lost bool) bridge {
	_, configured := v.networks.ConfiguredFor(l.Name)
	return bridge{index: l.Index, name: l.Name, lost: lost, reserved: configured && l.Name != name, uplink: v.isUplink(l.Index)}
}

// isUplink reports whether a default route of the host leaves by the link.
func (v *hostView) isUplink(index int) bool {
	for _, r := range v.hostLinks.DefaultRoutes() {
		if r.Index == index {
			return true
		}
	}
	return false
}

// leadsOutside reports whether a link carries the host's own default route:
// not one that a router advertisement made, nor one to a router among guests,
// behind a bridge whose ports are all taps.
func (v *hostView) leadsOutside(index int) bool {
	for _, r := range v.hostLinks.DefaultRoutes() {
		if r.Index == index && !r.FromRA && !v.guestsOnly(index) {
			return true
		}
	}
	return false
}

// guestsOnly reports whether a bridge has ports and all of them are taps.
func (v *hostView) guestsOnly(index int) bool {
	ports := 0
	for _, l := range v.hostLinks.Links() {
		if l.Master != index {
			continue
		}
		if !l.Tap {
			return false
		}
		ports++
	}
	return ports > 0
}

// refusal says why a new network may not have the link that has its bridge's
// name; nil where it may, or there is none.
func (v *hostView) refusal(name string, b bridge) error {
	switch {
	case b.stray == finding.NotABridge:
		return errorf(InvalidArgument, "%s exists and is not a bridge: only Linux bridges can be networks; name another bridge or remove the interface", name)
	case b.uplink && v.leadsOutside(b.index):
		return errorf(InvalidArgument, "%s carries the host's default route: rules for guests would cut the host off; use a bridge of the guests' own", name)
	}
	return nil
}
