package neighbour

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// decoder decodes a rule of a kind that libvirt makes with nft. Matches load a
// value into a register, may mask it, and compare it.
type decoder struct {
	rule     rule
	ipv6     bool
	linkName func(index uint32) string
	load     load
}

// load is what is in the register.
type load struct {
	field    field
	register uint32
	length   int // bytes
	mask     []byte
}

type field int

const (
	loadedNothing field = iota
	loadedInIndex
	loadedOutIndex
	loadedInName
	loadedOutName
	loadedProtocol
	loadedSource
	loadedDestination
	loadedPort
	loadedState
)

// decode decodes the expressions of a rule; ok is false if there is any that
// libvirt would not write.
func decode(expressions []byte, ipv6 bool, linkName func(uint32) string) (r rule, ok bool) {
	d := &decoder{ipv6: ipv6, linkName: linkName}
	for _, item := range nfnl.All(expressions) {
		e := nfnl.Attributes(item)
		if d.rule.action != actionNone || !d.expression(e.Text(unix.NFTA_EXPR_NAME), e.Get(unix.NFTA_EXPR_DATA)) {
			return rule{}, false
		}
	}
	return d.rule, d.rule.action != actionNone
}

func (d *decoder) expression(name string, e nfnl.Attributes) bool {
	switch name {
	case "counter":
		return true
	case "meta":
		return d.meta(e)
	case "payload":
		return d.payload(e)
	case "ct":
		d.load = load{field: loadedState, register: e.Uint32(unix.NFTA_CT_DREG), length: 4}
		return e.Uint32(unix.NFTA_CT_KEY) == unix.NFT_CT_STATE && !e.Has(unix.NFTA_CT_SREG) && !e.Has(unix.NFTA_CT_DIRECTION)
	case "bitwise":
		return d.bitwise(e)
	case "cmp":
		return d.compare(e)
	case "immediate":
		return d.immediate(e)
	case "reject":
		d.rule.action = actionReject
		return true
	case "masq":
		d.rule.action = actionTranslate
		return true
	case "nat":
		d.rule.action = actionTranslate
		return e.Uint32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT
	}
	return false
}

func (d *decoder) meta(e nfnl.Attributes) bool {
	kinds := map[uint32]load{
		unix.NFT_META_IIF:     {field: loadedInIndex, length: 4},
		unix.NFT_META_OIF:     {field: loadedOutIndex, length: 4},
		unix.NFT_META_IIFNAME: {field: loadedInName, length: unix.IFNAMSIZ},
		unix.NFT_META_OIFNAME: {field: loadedOutName, length: unix.IFNAMSIZ},
		unix.NFT_META_L4PROTO: {field: loadedProtocol, length: 1},
	}
	found, ok := kinds[e.Uint32(unix.NFTA_META_KEY)]
	found.register = e.Uint32(unix.NFTA_META_DREG)
	d.load = found
	return ok && !e.Has(unix.NFTA_META_SREG)
}

// payload loads a field of the packet, or writes the UDP checksum.
func (d *decoder) payload(e nfnl.Attributes) bool {
	type location struct{ base, offset uint32 }
	at := location{e.Uint32(unix.NFTA_PAYLOAD_BASE), e.Uint32(unix.NFTA_PAYLOAD_OFFSET)}
	length := int(e.Uint32(unix.NFTA_PAYLOAD_LEN))
	if e.Has(unix.NFTA_PAYLOAD_SREG) {
		d.rule.action = actionChecksum
		return at == location{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 6} && length == 2
	}
	source, destination := location{unix.NFT_PAYLOAD_NETWORK_HEADER, 12}, location{unix.NFT_PAYLOAD_NETWORK_HEADER, 16}
	if d.ipv6 {
		source.offset, destination.offset = 8, 24
	}
	d.load = load{register: e.Uint32(unix.NFTA_PAYLOAD_DREG), length: length}
	switch at {
	case source:
		d.load.field = loadedSource
	case destination:
		d.load.field = loadedDestination
	case location{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2}:
		d.load.field = loadedPort
		return length == 2
	}
	return d.load.field != loadedNothing && length > 0 && length <= len(d.zeroAddress())
}

// zeroAddress returns an address of the family with no bits set.
func (d *decoder) zeroAddress() []byte {
	if d.ipv6 {
		return make([]byte, 16)
	}
	return make([]byte, 4)
}

func (d *decoder) bitwise(e nfnl.Attributes) bool {
	mask, xor := e.Get(unix.NFTA_BITWISE_MASK).Get(unix.NFTA_DATA_VALUE), e.Get(unix.NFTA_BITWISE_XOR).Get(unix.NFTA_DATA_VALUE)
	ok := d.load.field != loadedNothing && d.load.mask == nil && e.Uint32(unix.NFTA_BITWISE_SREG) == d.load.register &&
		len(mask) == d.load.length && bytes.Equal(xor, make([]byte, len(mask))) && len(mask) > 0
	d.load.register, d.load.mask = e.Uint32(unix.NFTA_BITWISE_DREG), mask
	return ok
}

// compare ends a match. A name that is compared with fewer bytes is a prefix of
// many names, and refused.
func (d *decoder) compare(e nfnl.Attributes) bool {
	l, value := d.load, e.Get(unix.NFTA_CMP_DATA).Get(unix.NFTA_DATA_VALUE)
	d.load = load{}
	if e.Uint32(unix.NFTA_CMP_SREG) != l.register || len(value) != l.length {
		return false
	}
	equal, unequal := e.Uint32(unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ, e.Uint32(unix.NFTA_CMP_OP) == unix.NFT_CMP_NEQ
	switch l.field {
	case loadedSource:
		return equal && d.address(&d.rule.src, value, l.mask)
	case loadedDestination:
		d.rule.notDst = unequal
		return (equal || unequal) && d.address(&d.rule.dst, value, l.mask)
	case loadedState:
		d.rule.replies = true
		return unequal && isReplies(l.mask) && binary.NativeEndian.Uint32(value) == 0
	}
	return equal && l.mask == nil && d.setField(l.field, value)
}

// isReplies reports whether a mask has the states established and related.
func isReplies(mask []byte) bool {
	const established, related = 2, 4 // NF_CT_STATE_BIT of enum ip_conntrack_info
	return len(mask) == 4 && binary.NativeEndian.Uint32(mask) == established|related
}

func (d *decoder) setField(w field, value []byte) bool {
	switch w {
	case loadedInIndex:
		return setOnce(&d.rule.in, d.linkName(binary.NativeEndian.Uint32(value)))
	case loadedOutIndex:
		return setOnce(&d.rule.out, d.linkName(binary.NativeEndian.Uint32(value)))
	case loadedInName:
		return setOnce(&d.rule.in, unix.ByteSliceToString(value))
	case loadedOutName:
		return setOnce(&d.rule.out, unix.ByteSliceToString(value))
	case loadedProtocol:
		return setOnce(&d.rule.proto, value[0])
	case loadedPort:
		return setOnce(&d.rule.port, binary.BigEndian.Uint16(value))
	}
	return false
}

// setOnce refuses a second match of the same thing.
func setOnce[T comparable](into *T, value T) bool {
	var none T
	ok := *into == none && value != none
	*into = value
	return ok
}

// address sets a prefix from a value, which nft shortens to whole bytes, and a mask
// of leading ones, if any.
func (d *decoder) address(into *netip.Prefix, value, mask []byte) bool {
	length := 8 * len(value)
	if mask != nil {
		length = 0
		for i, b := range mask {
			ones := bits.LeadingZeros8(^b)
			if length < 8*i && b != 0 || bits.OnesCount8(b) != ones {
				return false
			}
			length += ones
		}
	}
	full := d.zeroAddress()
	copy(full, value)
	addr, _ := netip.AddrFromSlice(full)
	p := netip.PrefixFrom(addr, length)
	return p == p.Masked() && setOnce(into, p)
}

// immediate handles a verdict, or a number for what follows.
func (d *decoder) immediate(e nfnl.Attributes) bool {
	if e.Uint32(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
		return true
	}
	switch verdict, _ := verdictOf(e); verdict {
	case verdictAccept:
		d.rule.action = actionAccept
	case unix.NFT_RETURN:
		d.rule.action = actionReturn
	default:
		return false
	}
	return true
}

// verdictAccept is NF_ACCEPT.
const verdictAccept = 1

func verdictOf(immediate nfnl.Attributes) (code int32, chain string) {
	v := immediate.Get(unix.NFTA_IMMEDIATE_DATA).Get(unix.NFTA_DATA_VERDICT)
	return int32(v.Uint32(unix.NFTA_VERDICT_CODE)), v.Text(unix.NFTA_VERDICT_CHAIN)
}

// jump returns the chain that a rule jumps to if it does nothing else.
func jump(expressions []byte) (chain string, ok bool) {
	for _, item := range nfnl.All(expressions) {
		e := nfnl.Attributes(item)
		switch e.Text(unix.NFTA_EXPR_NAME) {
		case "counter":
		case "immediate":
			var code int32
			code, chain = verdictOf(e.Get(unix.NFTA_EXPR_DATA))
			if ok || code != unix.NFT_JUMP {
				return "", false
			}
			ok = true
		default:
			return "", false
		}
	}
	return chain, ok
}
