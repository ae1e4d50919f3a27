package dbus

import (
	"maps"
	"reflect"
	"slices"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// property is one property with its value, of the Go type that godbus and
// wire.go encode as the contract has it.
type property struct {
	name  string
	value any
}

// networkProperties are those of a Network object: its settings, and what the
// service knows beside them.
func networkProperties(st service.Status) []property {
	list := []property{
		{"Name", st.Network.Name},
		{"UUID", st.Network.UUID},
		{"BridgeIndex", int32(st.BridgeIndex)},
		{"Persistent", st.Persistent},
		{"Backend", st.Backend},
		{"State", string(st.State)},
		{"StateReason", clean(st.StateReason)},
		{"BoundZone", clean(st.BoundZone)},
		{"PortForwards", []map[string]godbus.Variant{}},
	}
	settings := st.Network.Settings()
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, property{key, settings[key]})
	}
	return list
}

// managerProperties are those of the manager object.
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

// changed are the properties of now that differ from those of old. Both come
// from the same function, so that they stand in the same order.
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
