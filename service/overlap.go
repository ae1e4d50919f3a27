package service

import (
	"net/netip"
	"slices"
)

// owned is a subnet and the network that it belongs to.
type owned struct {
	prefix  netip.Prefix
	network string
}

// firstOverlap finds two subnets of different networks that share addresses.
// Sorted by address and then by length, a subnet overlaps an earlier one if and
// only if it overlaps the last that is not inside another.
func firstOverlap(all []owned) (a, b owned, found bool) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b owned) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	for i := 1; i < len(all); i++ {
		if outer := all[i-1]; outer.prefix.Overlaps(all[i].prefix) {
			if outer.network != all[i].network {
				return outer, all[i], true
			}
			all[i] = widest(outer, all[i])
		}
	}
	return owned{}, owned{}, false
}

func widest(a, b owned) owned {
	if a.prefix.Bits() <= b.prefix.Bits() {
		return a
	}
	return b
}
