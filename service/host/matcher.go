package host

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// matcher holds the translated subnets. Subnets of networks do not overlap, so an
// address is in one of them at most, and one look-up per length of prefix finds it
// however many networks there are.
type matcher struct {
	nets    []Guests
	subnets map[netip.Prefix]int // with the network's position
	lengths []int
	v4, v6  bool // families with subnets
	own     func() map[netip.Addr]bool
}

func newMatcher(nets []Guests, own func() []netip.Addr) *matcher {
	m := &matcher{nets: nets, subnets: make(map[netip.Prefix]int), own: lazySet(own)}
	for i, g := range nets {
		n := g.Network
		if n.Mode != network.ModeNAT {
			continue
		}
		for _, p := range n.Subnets() {
			if p.Addr().Is4() || n.NATIPv6 {
				m.add(p, i)
			}
		}
	}
	return m
}

func (m *matcher) add(p netip.Prefix, position int) {
	m.subnets[p] = position
	m.v4, m.v6 = m.v4 || p.Addr().Is4(), m.v6 || p.Addr().Is6()
	if !slices.Contains(m.lengths, p.Bits()) {
		m.lengths = append(m.lengths, p.Bits())
	}
}

// family returns the family of the subnets, or AF_UNSPEC for both.
func (m *matcher) family() uint8 {
	switch {
	case m.v4 && m.v6:
		return unix.AF_UNSPEC
	case m.v6:
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// matches reports whether the connection would be translated now and is not. If it
// is redirected, its actual destination counts, which is the source of replies: that
// is what a rule of postrouting sees.
func (m *matcher) matches(c connection) bool {
	if c.replyTo != c.from {
		return false
	}
	from, ok := m.network(c.from)
	if !ok {
		return false
	}
	if to, ok := m.network(c.to); ok && to == from {
		return false
	}
	limited := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if c.to.IsMulticast() || c.to == limited {
		return false
	}
	own := m.own()
	return !own[c.from] && !own[c.to]
}

func (m *matcher) network(a netip.Addr) (position int, ok bool) {
	for _, bits := range m.lengths {
		if p, err := a.Prefix(bits); err == nil {
			if position, ok = m.subnets[p]; ok {
				return position, true
			}
		}
	}
	return 0, false
}

// lazySet returns a function that lists the addresses at its first call.
func lazySet(list func() []netip.Addr) func() map[netip.Addr]bool {
	var set map[netip.Addr]bool
	return func() map[netip.Addr]bool {
		if set == nil {
			set = make(map[netip.Addr]bool)
			for _, a := range list() {
				set[a] = true
			}
		}
		return set
	}
}
