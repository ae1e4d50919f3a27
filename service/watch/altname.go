package watch

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// AltNames are a link's alternative names (ip link property add altname), of up
// to 127 bytes each. It is one string so that links can be compared with ==; the
// names are separated by what no name can contain, a zero byte.
type AltNames string

// NewAltNames returns the names as one value.
func NewAltNames(names ...string) AltNames { return AltNames(strings.Join(names, "\x00")) }

// List returns the names in the order they were given to the link.
func (a AltNames) List() []string {
	if a == "" {
		return nil
	}
	return strings.Split(string(a), "\x00")
}

// longestAltName is ALTIFNAMSIZ of the kernel, its final zero byte included.
const maxAltName = 128

// attributeOf returns the attribute to request a link by name. The kernel looks
// either up among both kinds of names, but limits the length of the first.
func attributeOf(name string) int {
	if len(name) >= unix.IFNAMSIZ {
		return unix.IFLA_ALT_IFNAME
	}
	return unix.IFLA_IFNAME
}

// parseAltNames parses the value of IFLA_PROP_LIST.
func parseAltNames(b []byte) AltNames {
	var names []string
	for kind, value := range nfnl.All(b) {
		if kind != unix.IFLA_ALT_IFNAME {
			continue
		}
		if name := unix.ByteSliceToString(value); name != "" {
			names = append(names, name)
		}
	}
	return NewAltNames(names...)
}
