package dbus

import (
	"maps"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// Limits on the arguments of one call. Package network has tighter limits on
// what a network may have; these keep it cheap to check the arguments at all.
const (
	maxSettings    = 64
	maxTextBytes   = 1024
	maxListEntries = 256
)

// text limits the length of a string that came as an argument or a setting.
func text(field, s string) (string, error) {
	if len(s) > maxTextBytes {
		return "", invalid(service.LimitExceeded, "%.64s has %d bytes and may have %d: give a shorter one", field, len(s), maxTextBytes)
	}
	// godbus allocates the strings of a message from blocks of 4 KiB, each of
	// which would stay in memory for as long as one of its strings does.
	return strings.Clone(s), nil
}

// optionsOf reads the options of a call and refuses those not allowed.
func optionsOf(raw map[string]godbus.Variant, allowed ...string) (map[string]bool, error) {
	o := make(map[string]bool, len(allowed))
	for key, v := range raw {
		if !slices.Contains(allowed, key) {
			return nil, invalid(service.InvalidArgument, "option %.64q is not known here: use %s", key, strings.Join(allowed, " or "))
		}
		value, ok := v.Value().(bool)
		if !ok {
			return nil, invalid(service.InvalidArgument, "option %s has the type %s: give a boolean (b)", key, v.Signature())
		}
		o[key] = value
	}
	return o, nil
}

func changeOptions(raw map[string]godbus.Variant, allowed ...string) (service.ChangeOptions, error) {
	o, err := optionsOf(raw, allowed...)
	return service.ChangeOptions{Persistent: o["Persistent"], Replace: o["Replace"]}, err
}

// settingsOf unpacks the settings from their variants. Package network checks
// the keys.
func settingsOf(raw map[string]godbus.Variant) (map[string]any, error) {
	if len(raw) > maxSettings {
		return nil, invalid(service.LimitExceeded, "%d settings are given, and fewer than %d are known: remove the unknown ones", len(raw), maxSettings)
	}
	settings := make(map[string]any, len(raw))
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		value, err := setting(key, raw[key])
		if err != nil {
			return nil, err
		}
		settings[strings.Clone(key)] = value
	}
	return settings, nil
}

func setting(key string, v godbus.Variant) (any, error) {
	switch value := v.Value().(type) {
	case bool:
		return value, nil
	case string:
		return text(key, value)
	case []string:
		return textList(key, value)
	case []map[string]godbus.Variant:
		return value, nil
	}
	return nil, invalid(service.InvalidArgument, "setting %.64q has the type %s: give what the property of that name has", key, v.Signature())
}

func textList(key string, list []string) ([]string, error) {
	if len(list) > maxListEntries {
		return nil, invalid(service.LimitExceeded, "%.64s has %d entries and may have %d: give fewer", key, len(list), maxListEntries)
	}
	out := make([]string, len(list))
	for i, s := range list {
		var err error
		if out[i], err = text(key, s); err != nil {
			return nil, err
		}
	}
	return out, nil
}
