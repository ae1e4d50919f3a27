package service

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// syncPatience bounds what a call waits for the link monitor: where links
// change faster than it can follow, it goes by what is known.
const syncPatience = 500 * time.Millisecond

// seeHost brings what is known of the host up to date, so that a call is held
// against what its caller did to the host before: a default route, an address.
func (v *hostView) seeHost(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	if err := v.hostLinks.Sync(ctx); err != nil {
		v.log.Debug("going by what is known of the host", "error", err)
	}
}

// admit checks a network against the others and against the host, and looks at
// its bridge. before is the network that it takes the place of, or nil.
func (v *hostView) admit(n network.Network, before *managed) (bridge, error) {
	if err := v.admitBeside(n); err != nil {
		return bridge{}, err
	}
	if before != nil && before.net.Bridge == n.Bridge {
		b, err := v.look(n.Bridge, before.bridge.index, v.takenFrom(n.Name))
		if err != nil {
			return bridge{}, err
		}
		return b, v.admitOnHost(added(n, before), b)
	}
	b, err := v.look(n.Bridge, 0, v.takenFrom(n.Name))
	if err == nil {
		err = v.refusal(n.Bridge, b)
	}
	if err == nil && b.stray == finding.BridgeTaken {
		err = v.taken(n)
	}
	if err != nil {
		return bridge{}, err
	}
	return b, v.admitOnHost(n, b)
}

// added is a network with those of its subnets alone that it did not have
// before: what is in force is not refused for what the host has come to.
func added(n network.Network, before *managed) network.Network {
	had := func(p netip.Prefix) bool { return slices.Contains(before.subnets, p.Masked()) }
	n.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), had)
	n.Routes = slices.DeleteFunc(slices.Clone(n.Routes), had)
	return n
}

// taken says that the link which has a network's bridge's name is another
// network's: one link can have one network's rules only.
func (v *hostView) taken(n network.Network) error {
	l, _, err := v.hostLinks.Query(n.Bridge)
	if err != nil {
		return errorf(ApplyFailed, "looking at bridge %s: %w", n.Bridge, err)
	}
	for _, other := range v.networks.ByIndex(l.Index) {
		if other.net.Name != n.Name {
			return renamedFrom(n, other)
		}
	}
	return errorf(BridgeInUse, "bridge %s belonged to another network a moment ago: try again", n.Bridge)
}

// renamedFrom says that a network's bridge is another's under another name.
func renamedFrom(n network.Network, other *managed) error {
	return errorf(BridgeInUse, "bridge %s is that of network %q, which calls it %s: rename it back, or update or remove that network first",
		n.Bridge, other.net.Name, other.net.Bridge)
}

// admitBeside compares with the other managed networks.
func (v *hostView) admitBeside(n network.Network) error {
	if owner, taken := v.networks.Claimant(n.Bridge); taken && owner != n.Name {
		return errorf(BridgeInUse, "bridge %s belongs to network %q: remove that one first, or use another bridge", n.Bridge, owner)
	}
	if _, known := v.networks.Get(n.Name); !known && v.networks.Len() >= network.MaxNetworks {
		return errorf(LimitExceeded, "%d networks are the most there may be: remove one first", network.MaxNetworks)
	}
	subnets := contested(n)
	for _, other := range v.networks.Claims() {
		if other.net.Name == n.Name {
			continue
		}
		for _, p := range other.subnets {
			if mine, overlaps := overlap(subnets, p); overlaps {
				return errorf(SubnetOverlap, "subnet %s overlaps %s of network %q: choose another subnet", mine, p, other.net.Name)
			}
		}
	}
	return nil
}

func overlap(subnets []netip.Prefix, p netip.Prefix) (netip.Prefix, bool) {
	for _, mine := range subnets {
		if mine.Overlaps(p) {
			return mine, true
		}
	}
	return netip.Prefix{}, false
}
