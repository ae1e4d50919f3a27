package network

import (
	"net/netip"
	"slices"
)

// Validate checks all that can be checked of the value alone. The error is an
// *InvalidError or a *LimitError.
func (n Network) Validate() error {
	checks := []func(Network) error{
		func(n Network) error { return validateName(n.Name) },
		validateUUID,
		func(n Network) error { return validateIfName("Bridge", n.Bridge) },
		validateLimits,
		validateMode,
		validateDevices,
		validateSubnets,
		validateNAT,
		func(n Network) error { return validateZone(n.Zone) },
	}
	for _, check := range checks {
		if err := check(n); err != nil {
			return err
		}
	}
	return nil
}

func validateUUID(n Network) error {
	id, err := parseUUID(n.UUID)
	if err != nil {
		return err
	}
	if id != n.UUID {
		return invalid("UUID", "%s is not in lower case with dashes: write %s", quote(n.UUID), id)
	}
	return nil
}

func validateLimits(n Network) error {
	for _, l := range []LimitError{
		{"Addresses", len(n.Addresses), MaxAddresses, "addresses"},
		{"Routes", len(n.Routes), MaxRoutes, "routes"},
		{"ForwardDevices", len(n.Devices), MaxDevices, "devices"},
	} {
		if l.Got > l.Max {
			return &l
		}
	}
	return nil
}

func validateMode(n Network) error {
	switch n.Mode {
	case ModeNAT, ModeRoute, ModeOpen, ModeIsolated:
		return nil
	}
	return invalid("ForwardMode", "%s is none of nat, route, open and isolated: use one of them", quote(string(n.Mode)))
}

func validateDevices(n Network) error {
	const field = "ForwardDevices"
	if len(n.Devices) > 0 && (n.Mode == ModeOpen || n.Mode == ModeIsolated) {
		return invalid(field, "a network of mode %s cannot restrict the devices it forwards to: remove them, or use mode nat or route", n.Mode)
	}
	for i, dev := range n.Devices {
		if err := validateIfName(field, dev); err != nil {
			return err
		}
		if dev == n.Bridge {
			return invalid(field, "%s is the network's own bridge: name the interface towards the outside", quote(dev))
		}
		if slices.Contains(n.Devices[:i], dev) {
			return invalid(field, "%s is given twice: remove one", quote(dev))
		}
	}
	return nil
}

// validateNAT checks the settings of translation.
func validateNAT(n Network) error {
	given := []struct {
		key string
		is  bool
	}{
		{"NATAddressRange", !n.NATAddresses.IsZero()},
		{"NATIPv6AddressRange", !n.NATAddresses6.IsZero()},
		{"NATPortRange", !n.NATPorts.IsZero()},
		{"NATIPv6", n.NATIPv6},
	}
	for _, g := range given {
		if g.is && n.Mode != ModeNAT {
			return invalid(g.key, "a network of mode %s translates nothing: remove it, or use mode nat", n.Mode)
		}
	}
	if !n.NATAddresses6.IsZero() && !n.NATIPv6 {
		return invalid("NATIPv6AddressRange", "IPv6 is not translated here: switch that on (NATIPv6, <nat ipv6='yes'>), or remove the range")
	}
	if err := validatePool("NATAddressRange", n.NATAddresses, netip.Addr.Is4, "an IPv4 address"); err != nil {
		return err
	}
	if err := validatePool("NATIPv6AddressRange", n.NATAddresses6, netip.Addr.Is6, "an IPv6 address"); err != nil {
		return err
	}
	return validatePorts(n.NATPorts)
}

func validatePorts(r PortRange) error {
	const field = "NATPortRange"
	if r.IsZero() {
		return nil
	}
	if r.First == 0 || r.Last == 0 {
		return invalid(field, "port 0 cannot be used: give ports from 1 to 65535")
	}
	if r.First > r.Last {
		return invalid(field, "%d-%d ends before it starts: swap the ports", r.First, r.Last)
	}
	return nil
}
