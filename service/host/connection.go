package host

import (
	"bytes"
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// connection is a tracked connection. Its slices belong to the message that it
// was read from, unless cloned.
type connection struct {
	from    netip.Addr // original source
	to      netip.Addr // actual destination: the source of replies
	replyTo netip.Addr // the destination of replies

	original []byte // the original direction, as the kernel names it
	id       []byte
}

func (c connection) clone() connection {
	c.original, c.id = bytes.Clone(c.original), bytes.Clone(c.id)
	return c
}

// parseConnection parses a message about a connection. ok is false if something is
// missing, and for one outside conntrack's default zone: it belongs to the creator
// of that zone, who may use the same addresses for something else.
func parseConnection(b []byte) (c connection, ok bool) {
	var zoned bool
	for kind, value := range nfnl.All(b) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			var zone bool
			c.original = value
			c.from, _, zone = parseTuple(value)
			zoned = zoned || zone
		case nl.CTA_TUPLE_REPLY:
			var zone bool
			c.to, c.replyTo, zone = parseTuple(value)
			zoned = zoned || zone
		case nl.CTA_ZONE:
			zoned = true
		case nl.CTA_ID:
			c.id = value
		}
	}
	return c, c.from.IsValid() && c.to.IsValid() && c.replyTo.IsValid() && len(c.id) == 4 && !zoned
}

// parseTuple parses one direction of a connection.
func parseTuple(b []byte) (source, destination netip.Addr, zoned bool) {
	const tupleZone = 3 // CTA_TUPLE_ZONE
	for kind, value := range nfnl.All(b) {
		switch kind {
		case tupleZone:
			zoned = true
		case nl.CTA_TUPLE_IP:
			for kind, value := range nfnl.All(value) {
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					source, _ = netip.AddrFromSlice(value)
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					destination, _ = netip.AddrFromSlice(value)
				}
			}
		}
	}
	return source, destination, zoned
}
