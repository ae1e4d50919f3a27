package dbus

import (
	"net/netip"
	"reflect"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// property is one property with its value, which has the Go type that godbus and
// wire.go encode with the contract's signature.
type property struct {
	name  string
	value any
}

// networkProperties returns those of a Network object: its status, and its
// settings. The settings are written out here: Network.Settings takes five times
// as long, and GetManagedObjects needs those of all networks.
func networkProperties(st service.Status) []property {
	n := st.Network
	return []property{
		{"Name", n.Name},
		{"UUID", n.UUID},
		{"BridgeIndex", int32(st.BridgeIndex)},
		{"Persistent", st.Persistent},
		{"Backend", st.Backend},
		{"State", string(st.State)},
		{"StateCode", string(st.StateCode)},
		{"StateReason", clean(st.StateReason)},
		{"BoundZone", clean(st.BoundZone)},
		{"PortForwards", []map[string]godbus.Variant{}},
		{"Bridge", n.Bridge},
		{"ForwardMode", string(n.Mode)},
		{"ForwardDevices", stringList(n.Devices)},
		{"Addresses", prefixes(n.Addresses)},
		{"Routes", prefixes(n.Routes)},
		{"NATAddressRange", n.NATAddresses.String()},
		{"NATIPv6AddressRange", n.NATAddresses6.String()},
		{"NATPortRange", n.NATPorts.String()},
		{"NATIPv6", n.NATIPv6},
		{"IPv6Guests", n.IPv6Guests},
		{"Zone", n.Zone},
		{"DHCP", n.DHCP},
		{"DNS", n.DNS},
		{"TFTP", n.TFTP},
	}
}

// managerProperties returns those of the manager object.
func managerProperties(h service.Host) []property {
	return []property{
		{"Version", clean(h.Version)},
		{"Backend", clean(h.Backend)},
		{"ConfiguredBackend", clean(h.ConfiguredBackend)},
		{"BackendSource", clean(h.BackendSource)},
		{"AvailableBackends", stringList(h.AvailableBackends)},
		{"FirewalldRunning", h.FirewalldRunning},
		{"FirewalldBackend", clean(h.FirewalldBackend)},
		{"InstalledZones", stringList(h.InstalledZones)},
	}
}

// changed returns the properties of now that differ from those of old. Both must
// come from the same function, which puts them in the same order.
func changed(old, now []property) map[string]godbus.Variant {
	m := make(map[string]godbus.Variant)
	for i, p := range now {
		if !reflect.DeepEqual(old[i].value, p.value) {
			m[p.name] = godbus.MakeVariant(p.value)
		}
	}
	return m
}

func variants(list []property) map[string]godbus.Variant {
	m := make(map[string]godbus.Variant, len(list))
	for _, p := range list {
		m[p.name] = godbus.MakeVariant(p.value)
	}
	return m
}

func stringList(list []string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = clean(v)
	}
	return out
}

func prefixes(list []netip.Prefix) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}
