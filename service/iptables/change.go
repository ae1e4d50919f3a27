package iptables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
)

// removed returns the networks that have no rules after a change: those that are
// removed, and those whose bridge belongs to another network.
func removed(c backend.Change) []string {
	names := slices.Clone(c.Remove)
	for _, m := range c.Set {
		if m.Iface == "" {
			names = append(names, m.Network.Name)
		}
	}
	return names
}

// change is what a call of Apply amounts to.
type change struct {
	want, fresh, gone []entry
	altered           []alteration
}

func (b *Backend) change(set []entry, remove []string) change {
	var c change
	given := make(map[string]entry, len(set))
	for _, n := range set {
		given[n.network] = n
	}
	for _, old := range b.installed {
		n, is := given[old.network]
		delete(given, old.network)
		switch {
		case is && len(n.rules) > 0:
			if !slices.Equal(old.rules, n.rules) {
				c.altered = append(c.altered, alteration{old, n})
			}
			c.want = append(c.want, n)
		case is || slices.Contains(remove, old.network):
			c.gone = append(c.gone, old)
		default:
			c.want = append(c.want, old)
		}
	}
	for _, n := range set {
		if _, is := given[n.network]; is && len(n.rules) > 0 {
			c.want, c.fresh = append(c.want, n), append(c.fresh, n)
		}
	}
	return c
}

// needsNoListing reports whether a change can be made without listing the rules:
// the chains exist and stay, and whole networks come or go. Two networks of one
// subnet share rules, whose order only a listing can preserve; and rules that
// libvirt left for a network must not be duplicated.
func (c change) needsNoListing(unmanaged map[Rule]bool) bool {
	stay := c.want[:len(c.want)-len(c.fresh)]
	if len(c.altered) > 0 || len(stay)+len(c.gone) == 0 || len(c.want) == 0 {
		return false
	}
	libvirts, beside := needs(c.want)
	if l, b := needs(slices.Concat(stay, c.gone)); l != libvirts || b != beside {
		return false
	}
	going := make(map[Rule]bool)
	for _, n := range c.gone {
		for _, r := range n.rules {
			going[r] = true
		}
	}
	for _, n := range c.fresh {
		if slices.ContainsFunc(n.rules, func(r Rule) bool { return going[r] || unmanaged[r] }) {
			return false
		}
	}
	return true
}

// replacesOne reports whether a change gives one network other rules and does nothing
// else. Rules that others have too need a listing, as in needsNoListing.
func (c change) replacesOne(unmanaged map[Rule]bool) bool {
	if len(c.altered) != 1 || len(c.fresh) > 0 || len(c.gone) > 0 {
		return false
	}
	a := c.altered[0]
	if (a.old.theirs == nil) != (a.now.theirs == nil) {
		return false
	}
	of := make(map[Rule]bool, len(a.old.rules)+len(a.now.rules))
	for _, r := range slices.Concat(a.old.rules, a.now.rules) {
		of[r] = true
	}
	for _, n := range c.want {
		if n.network != a.now.network && slices.ContainsFunc(n.rules, func(r Rule) bool { return of[r] }) {
			return false
		}
	}
	return !slices.ContainsFunc(a.now.rules, func(r Rule) bool { return unmanaged[r] })
}
