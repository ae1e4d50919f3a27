package network

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// setting is one key that a client may set: how it is set in a network and read
// from one.
type setting struct {
	key  string
	want string // the type, for messages
	// set returns false for a value of another type.
	set func(*Network, any) (ok bool, err error)
	get func(Network) any
}

// FromSettings returns a network with the contract's settings, whose values are
// strings, bools and []string. Bridge is required. ForwardMode is nat unless
// given, DHCP and DNS are served and TFTP is not: what virsh's default network
// has. The error is an *InvalidError, a *LimitError or ErrNotSupported.
func FromSettings(name string, values map[string]any) (Network, error) {
	n := Network{Name: name, UUID: deriveUUID(name), Mode: ModeNAT, DHCP: true, DNS: true}
	if err := validateName(name); err != nil {
		return Network{}, err
	}
	if _, ok := values["Bridge"]; !ok {
		return Network{}, invalid("Bridge", "the setting is missing: give the name of the network's bridge")
	}
	return n.With(values)
}

// With returns a copy of the network with the given settings changed.
func (n Network) With(values map[string]any) (Network, error) {
	all := settings()
	if err := refuseUnknown(all, values); err != nil {
		return Network{}, err
	}
	n = n.normal()
	for _, s := range all {
		v, given := values[s.key]
		if !given {
			continue
		}
		ok, err := s.set(&n, v)
		if err != nil {
			return Network{}, err
		}
		if !ok {
			return Network{}, invalid(s.key, "the value has the type %T: give %s", v, s.want)
		}
	}
	n = n.normal()
	return n, n.Validate()
}

// Settings returns all settings by key, as FromSettings takes them.
func (n Network) Settings() map[string]any {
	n = n.normal()
	out := make(map[string]any)
	for _, s := range settings() {
		out[s.key] = s.get(n)
	}
	return out
}

// SettingKeys returns the keys that FromSettings and With accept, in the order of
// the contract.
func SettingKeys() []string {
	var keys []string
	for _, s := range settings() {
		keys = append(keys, s.key)
	}
	return keys
}

func settings() []setting {
	return []setting{
		text("Bridge", func(n *Network) *string { return &n.Bridge }),
		text("ForwardMode", func(n *Network) *string { return (*string)(&n.Mode) }),
		strs("ForwardDevices", MaxDevices, func(n *Network) *[]string { return &n.Devices }, parseDevice, asIs),
		strs("Addresses", MaxAddresses, func(n *Network) *[]netip.Prefix { return &n.Addresses }, parseSubnet, netip.Prefix.String),
		strs("Routes", MaxRoutes, func(n *Network) *[]netip.Prefix { return &n.Routes }, parseSubnet, netip.Prefix.String),
		ranged("NATAddressRange", func(n *Network) *AddrRange { return &n.NATAddresses }, parseRange, AddrRange.String),
		ranged("NATIPv6AddressRange", func(n *Network) *AddrRange { return &n.NATAddresses6 }, parseRange, AddrRange.String),
		ranged("NATPortRange", func(n *Network) *PortRange { return &n.NATPorts }, parsePorts, PortRange.String),
		boolean("NATIPv6", func(n *Network) *bool { return &n.NATIPv6 }),
		boolean("IPv6Guests", func(n *Network) *bool { return &n.IPv6Guests }),
		text("Zone", func(n *Network) *string { return &n.Zone }),
		boolean("DHCP", func(n *Network) *bool { return &n.DHCP }),
		boolean("DNS", func(n *Network) *bool { return &n.DNS }),
		boolean("TFTP", func(n *Network) *bool { return &n.TFTP }),
	}
}

// refuseUnknown returns an error for the first key, by alphabet, that is no setting.
func refuseUnknown(all []setting, values map[string]any) error {
	known := make(map[string]bool, len(all))
	for _, s := range all {
		known[s.key] = true
	}
	var unknown []string
	for key := range values {
		if !known[key] {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		if key == "PortForwards" {
			if err := refusePortForwards(values[key]); err != nil {
				return err
			}
			continue
		}
		if key == "Name" || key == "UUID" {
			return invalid(key, "it cannot be set: remove the network and add it under another name")
		}
		return invalid(plain(key), "there is no such setting: use %s", strings.Join(SettingKeys(), ", "))
	}
	return nil
}

// refusePortForwards accepts only an empty list.
func refusePortForwards(v any) error {
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice {
		return invalid("PortForwards", "the value has the type %T: give a list of forwards", v)
	}
	if list.Len() > 0 {
		return &notSupported{"PortForwards: port forwards cannot be made yet: leave the setting out"}
	}
	return nil
}

type notSupported struct{ text string }

func (e *notSupported) Error() string        { return e.text }
func (e *notSupported) Is(target error) bool { return target == ErrNotSupported }

func text(key string, at func(*Network) *string) setting {
	return setting{key, "a string", func(n *Network, v any) (bool, error) {
		s, ok := v.(string)
		*at(n) = s
		return ok, nil
	}, func(n Network) any { return *at(&n) }}
}

func boolean(key string, at func(*Network) *bool) setting {
	return setting{key, "a boolean", func(n *Network, v any) (bool, error) {
		b, ok := v.(bool)
		*at(n) = b
		return ok, nil
	}, func(n Network) any { return *at(&n) }}
}

// ranged returns a setting of the form "first-last", "" for none.
func ranged[T any](key string, at func(*Network) *T, parse func(key, s string) (T, error), show func(T) string) setting {
	return setting{key, "a string", func(n *Network, v any) (ok bool, err error) {
		s, ok := v.(string)
		if !ok || s == "" {
			var none T
			*at(n) = none
			return ok, nil
		}
		*at(n), err = parse(key, s)
		return true, err
	}, func(n Network) any { return show(*at(&n)) }}
}

// strs returns a setting that is a list.
func strs[T any](key string, limit int, at func(*Network) *[]T, parse func(key, s string) (T, error), show func(T) string) setting {
	return setting{key, "an array of strings", func(n *Network, v any) (bool, error) {
		list, ok := v.([]string)
		if len(list) > limit {
			return true, &LimitError{Field: key, Got: len(list), Max: limit, Unit: "entries"}
		}
		out := make([]T, 0, len(list))
		for _, s := range list {
			item, err := parse(key, s)
			if err != nil {
				return true, err
			}
			out = append(out, item)
		}
		*at(n) = out
		return ok, nil
	}, func(n Network) any {
		out := make([]string, 0, len(*at(&n)))
		for _, item := range *at(&n) {
			out = append(out, show(item))
		}
		return out
	}}
}

func asIs(s string) string                    { return s }
func parseDevice(_, s string) (string, error) { return s, nil }

func parseRange(key, s string) (AddrRange, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return AddrRange{}, invalid(key, `%s is not a range: write "first-last"`, quote(s))
	}
	a, err := parseAddr(key, first)
	if err != nil {
		return AddrRange{}, err
	}
	b, err := parseAddr(key, last)
	return AddrRange{First: a, Last: b}, err
}

func parsePorts(key, s string) (PortRange, error) {
	first, last, _ := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a == 0 || b == 0 {
		return PortRange{}, invalid(key, `%s is not a range of ports from 1 to 65535: write "first-last"`, quote(s))
	}
	return PortRange{First: uint16(a), Last: uint16(b)}, nil
}
