package zones

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// settings are those of a zone or policy, each value as a sorted set of strings,
// so that any two can be compared: firewalld omits empty ones, and returns lists
// in the order in which things were added.
type settings map[string][]string

func settingsOf(raw map[string]dbus.Variant) settings {
	s := make(settings)
	for key, v := range raw {
		if set := toSet(v.Value()); len(set) > 0 && !isDefault(key, set) {
			s[key] = set
		}
	}
	return s
}

// isDefault reports whether a value is one that a zone file omits: firewalld 2
// returns priorities for every zone, 0 unless they were set.
func isDefault(key string, set []string) bool {
	return (key == "ingress_priority" || key == "egress_priority") && slices.Equal(set, []string{"0"})
}

// toSet returns a value as a sorted set; false and "" are the empty set.
func toSet(value any) []string {
	var out []string
	switch v := value.(type) {
	case string:
		out = []string{v}
	case bool:
		if v {
			out = []string{"on"}
		}
	case []string:
		out = slices.Clone(v)
	case [][]any:
		for _, tuple := range v {
			out = append(out, joinTuple(tuple))
		}
	default:
		out = []string{fmt.Sprint(v)}
	}
	out = slices.DeleteFunc(out, func(s string) bool { return s == "" })
	slices.Sort(out)
	return slices.Compact(out)
}

// joinTuple formats a tuple as firewall-cmd does: 80/tcp, and with spaces where
// it has more than two parts.
func joinTuple(tuple []any) string {
	parts := make([]string, len(tuple))
	for i, p := range tuple {
		if list, ok := p.([]string); ok {
			p = strings.Join(list, " ")
		}
		parts[i] = fmt.Sprint(p)
	}
	if len(parts) == 2 {
		return parts[0] + "/" + parts[1]
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// without returns s without some keys.
func (s settings) without(keys ...string) settings {
	s = maps.Clone(s)
	for _, k := range keys {
		delete(s, k)
	}
	return s
}

func (s settings) equal(t settings) bool {
	return maps.EqualFunc(s, t, slices.Equal)
}

// merge returns the union of the settings of two parts of a combined zone.
func (s settings) merge(t settings) settings {
	out := make(settings, len(s)+len(t))
	maps.Copy(out, s)
	for key, set := range t {
		union := slices.Sorted(slices.Values(slices.Concat(out[key], set)))
		out[key] = slices.Compact(union)
	}
	return out
}

// label returns firewall-cmd's word for a key.
func label(key string) string {
	switch key {
	case "rules_str", "rich_rules":
		return "rich rule"
	case "icmp_blocks":
		return "ICMP block"
	case "icmp_block_inversion":
		return "ICMP block inversion"
	}
	return strings.ReplaceAll(strings.TrimSuffix(key, "s"), "_", " ")
}

// lostSettings lists what a reload would change in an object's runtime settings.
// A setting that is only permanent counts as well: it may have been removed at
// runtime, and would then be in force again.
func lostSettings(object string, runtime, permanent settings) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(runtime.merge(permanent))) {
		for _, v := range missingFrom(permanent[key], runtime[key]) {
			out = append(out, fmt.Sprintf("%s: %s %s (only at runtime)", object, label(key), v))
		}
		for _, v := range missingFrom(runtime[key], permanent[key]) {
			out = append(out, fmt.Sprintf("%s: %s %s (permanent, and not in force now)", object, label(key), v))
		}
	}
	return out
}

// missingFrom returns the elements of b that a lacks.
func missingFrom(a, b []string) []string {
	var out []string
	for _, v := range b {
		if !slices.Contains(a, v) {
			out = append(out, v)
		}
	}
	return out
}
