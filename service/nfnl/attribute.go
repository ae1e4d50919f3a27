// Package nfnl reads netlink attributes, and asks nf_tables for its objects.
package nfnl

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TypeFlags are the bits of an attribute's type that are not part of its number.
const TypeFlags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER

// All yields netlink attributes by type, without the nested and byte order bits, and
// without copying: values must not be appended to. It stops at the first one that
// does not fit.
func All(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ TypeFlags
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			if !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

// Attributes holds encoded attributes, or the value of one, which may be attributes
// again. Of several of one type the first counts; an absent or too short one reads
// as zero.
type Attributes []byte

// Get returns the value of an attribute, nil if there is none.
func (a Attributes) Get(typ uint16) Attributes {
	for t, value := range All(a) {
		if t == typ {
			return value
		}
	}
	return nil
}

// Has reports whether there is an attribute of the type.
func (a Attributes) Has(typ uint16) bool { return a.Get(typ) != nil }

// Text returns a string attribute.
func (a Attributes) Text(typ uint16) string { return Text(a.Get(typ)) }

// Uint32 returns a number in network byte order.
func (a Attributes) Uint32(typ uint16) uint32 {
	value := a.Get(typ)
	if len(value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// Uint64 returns a number in network byte order.
func (a Attributes) Uint64(typ uint16) uint64 {
	value := a.Get(typ)
	if len(value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// Text returns the string that a value holds, without its closing zero.
func Text(value []byte) string { return string(bytes.TrimSuffix(value, []byte{0})) }

// Named returns an attribute that holds a string.
func Named(typ uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(name), 0)}
}
