package network

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// validateName checks a network's own name. Names become file names, object paths,
// comments in quotation marks and XML, and must not break out of any of those.
func validateName(name string) error {
	const field = "Name"
	switch {
	case name == "":
		return invalid(field, "the name is missing: give 1 to %d bytes of UTF-8", MaxNameBytes)
	case len(name) > MaxNameBytes:
		return invalid(field, "%s has %d bytes: use at most %d", quote(name), len(name), MaxNameBytes)
	case name == "." || name == "..":
		return invalid(field, "%s cannot be a name, since it names a folder: use another", quote(name))
	case !utf8.ValidString(name):
		return invalid(field, "%s is not UTF-8: use another name", quote(name))
	}
	for _, r := range name {
		// XML has no way to write U+FFFE and U+FFFF, so such a name could not be stored.
		if unicode.IsControl(r) || strings.ContainsRune(`/\"`, r) || r == 0xFFFE || r == 0xFFFF {
			return invalid(field, `%s contains %q: use a name without control characters, /, \ and "`, quote(name), r)
		}
	}
	return nil
}

// validateIfName checks an interface's name by the kernel's rule
// (dev_valid_name in net/core/dev.c) and also refuses what another reader of the
// rules would misread.
func validateIfName(field, name string) error {
	switch {
	case name == "":
		return invalid(field, "the interface's name is missing: give one of 1 to %d bytes", MaxIfNameBytes)
	case len(name) > MaxIfNameBytes:
		return invalid(field, "%s has %d bytes, but the kernel's interfaces have at most %d: use the interface's real name",
			quote(name), len(name), MaxIfNameBytes)
	case !utf8.ValidString(name):
		return invalid(field, "%s is not UTF-8, which D-Bus cannot carry: rename the interface", quote(name))
	case name == "." || name == ".." || name == "all" || name == "default":
		// all and default are folders of /proc/sys/net; no interface can have their names since Linux 4.18.
		return invalid(field, "the kernel has no interface named %s: use the interface's real name", quote(name))
	case strings.HasSuffix(name, "*") || strings.HasSuffix(name, "+"):
		return invalid(field, "%s would match other interfaces too, since nft and iptables take its end for a wildcard: rename the interface", quote(name))
	}
	return validateIfNameBytes(field, name)
}

// IsInterfaceName reports whether a link of that name can be named in rules.
func IsInterfaceName(name string) bool { return validateIfName("", name) == nil }

func validateIfNameBytes(field, name string) error {
	for _, r := range name {
		if !unicode.IsPrint(r) || strings.ContainsRune(` /:%"\`, r) {
			return invalid(field, "%s contains %q, which an interface's name cannot have: use the interface's real name", quote(name), r)
		}
	}
	// The kernel's isspace is that of Latin-1, where 0xA0 is a space, whatever character the byte belongs to.
	if strings.IndexByte(name, 0xA0) >= 0 {
		return invalid(field, "%s contains the byte 0xa0, which the kernel takes for a space: use the interface's real name", quote(name))
	}
	return nil
}

// maxZoneChars is firewalld's max_zone_name_len: 28 characters of a chain's
// name less what firewalld puts around the zone.
const maxZoneChars = 17

// validateZone checks a zone's name by firewalld's rule (Zone.check_name): a
// file of the zones folder, or one of a folder below it.
func validateZone(zone string) error {
	const field = "Zone"
	if zone == "" {
		return nil
	}
	if len(zone) > MaxNameBytes || !utf8.ValidString(zone) {
		return invalid(field, "%s is not a zone's name: use one that firewall-cmd --get-zones lists", quote(zone))
	}
	for _, r := range zone {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("_-/", r) {
			return invalid(field, "%s contains %q, which firewalld allows in no zone's name: use one that firewall-cmd --get-zones lists", quote(zone), r)
		}
	}
	first, rest, nested := strings.Cut(zone, "/")
	if first == "" || nested && rest == "" || strings.Contains(rest, "/") {
		return invalid(field, "%s has a / too many, since a zone's name has at most one, inside it: use one that firewall-cmd --get-zones lists", quote(zone))
	}
	if utf8.RuneCountInString(first) > maxZoneChars {
		return invalid(field, "%s is longer than the %d characters that firewalld allows: use one that firewall-cmd --get-zones lists", quote(zone), maxZoneChars)
	}
	return nil
}
