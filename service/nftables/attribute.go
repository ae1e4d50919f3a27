package nftables

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/attribute"
)

const (
	// attributeType masks the nested and byte order bits off a type.
	attributeType = 0x3fff
	// genHeader is the length of struct nfgenmsg, which begins every message.
	genHeader = 4
)

// kind is the header type of an nf_tables message.
func kind(message int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message)
}

// find gives the data of the first attribute of the type.
func find(data []byte, typ uint16) ([]byte, bool) {
	for t, value := range attribute.All(data) {
		if t == typ {
			return value, true
		}
	}
	return nil, false
}

// text is a string attribute without its closing zero.
func text(data []byte) string {
	return string(bytes.TrimSuffix(data, []byte{0}))
}

// findText is the string of the first attribute of the type, or "".
func findText(data []byte, typ uint16) string {
	value, _ := find(data, typ)
	return text(value)
}

// number32 is a big-endian attribute, or 0 where it is too short.
func number32(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(data)
}

// number64 is a big-endian attribute, or 0 where it is too short.
func number64(data []byte) uint64 {
	if len(data) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(data)
}

// userData walks the type, length, value triples that nft keeps beside rules
// and elements. They may be anybody's, so lengths are not believed.
func userData(data []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(data) >= 2 && 2+int(data[1]) <= len(data) {
			n := 2 + int(data[1])
			if !yield(data[0], data[2:n:n]) {
				return
			}
			data = data[n:]
		}
	}
}
