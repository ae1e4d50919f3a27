// Package attribute reads netlink attributes.
package attribute

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// All walks netlink attributes by type, without the nested and byte order bits,
// and without copying: values must not be appended to. It stops at the first
// one that does not fit.
func All(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
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
