package network

import "net/netip"

// reserved are the addresses that neither a guest may have nor a translated packet
// as its source. Rules that covered them would match traffic of the host itself.
var reserved = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// The largest subnets that one network may claim.
const (
	minBits4 = 8
	minBits6 = 16
)

// validateSubnets checks addresses and routes. Subnets of one network may contain
// one another, as with libvirt: all of them have the same verdicts.
func validateSubnets(n Network) error {
	for i, p := range n.Addresses {
		if err := validateSubnet("Addresses", p); err != nil {
			return err
		}
		for _, q := range n.Addresses[:i] {
			if p == q {
				return invalid("Addresses", "%s is given twice: remove one", p)
			}
		}
	}
	for _, p := range n.Routes {
		if err := validateSubnet("Routes", p); err != nil {
			return err
		}
		if p != p.Masked() {
			return invalid("Routes", "%s is an address inside a subnet: write the subnet, %s", p, p.Masked())
		}
	}
	return nil
}

func validateSubnet(field string, p netip.Prefix) error {
	if !p.IsValid() {
		return invalid(field, `an address without a subnet is given: write "192.168.122.1/24"`)
	}
	least := minBits4
	if p.Addr().Is6() {
		least = minBits6
	}
	if p.Bits() < least {
		return invalid(field, "%s is larger than a /%d, the largest subnet that a network may have: use a longer prefix", p, least)
	}
	for _, r := range reserved {
		if p.Overlaps(r.prefix) {
			return invalid(field, "%s covers %s addresses (%s), which guests cannot have: use another subnet", p, r.kind, r.prefix)
		}
	}
	return nil
}

// validatePool checks a range of source addresses for translation.
func validatePool(field string, r AddrRange, family func(netip.Addr) bool, want string) error {
	if r.IsZero() && !r.Last.IsValid() {
		return nil
	}
	for _, a := range []netip.Addr{r.First, r.Last} {
		if !a.IsValid() || !family(a) || a.Zone() != "" {
			return invalid(field, "%s is not %s: correct it", quote(a.String()), want)
		}
	}
	if r.Last.Less(r.First) {
		return invalid(field, "%s ends before it starts: swap the addresses", r)
	}
	for _, p := range reserved {
		if rangeOverlaps(r, p.prefix) {
			return invalid(field, "%s covers %s addresses (%s), which no packet may come from: use another range", r, p.kind, p.prefix)
		}
	}
	return nil
}

func rangeOverlaps(r AddrRange, p netip.Prefix) bool {
	if p.Addr().Is4() != r.First.Is4() {
		return false
	}
	return p.Contains(r.First) || p.Contains(r.Last) || !p.Addr().Less(r.First) && !r.Last.Less(p.Addr())
}

// linkLocal6 is the prefix that every IPv6 interface has an address of.
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// OfOneLink reports whether a subnet's addresses are valid on one link only: those
// of IPv6's link-local prefix, which no host forwards (RFC 4291, 2.5.6), so that
// any number of bridges and uplinks may have the same. IPv4's 169.254.0.0/16 is not
// one, as Linux forwards it like any other subnet.
func OfOneLink(p netip.Prefix) bool {
	return p.Bits() >= linkLocal6.Bits() && linkLocal6.Contains(p.Addr())
}
