package analysis

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// load is what is in a register.
type load struct {
	field  fieldKind
	length int // bytes
	mask   []byte
}

// fieldKind is a field of a packet.
type fieldKind int

const (
	fieldOther fieldKind = iota // one that tells nothing here
	fieldInIndex
	fieldOutIndex
	fieldInName
	fieldOutName
	fieldProtocol
	fieldFamily
	fieldEtherType
	fieldSource
	fieldDestination
	fieldSourcePort
	fieldDestinationPort
	fieldState
	fieldStatus
	fieldMark
	fieldICMPType
	fieldTCPFlags
	fieldHopLimit
	fieldSourceType
	fieldDestinationType
	fieldReverseRoute
)

func (d *nftDecoder) meta(e nfnl.Attributes) {
	if e.Has(unix.NFTA_META_SREG) {
		if e.Uint32(unix.NFTA_META_KEY) == unix.NFT_META_MARK {
			d.setMark(d.values[register(e.Uint32(unix.NFTA_META_SREG))])
		}
		return
	}
	known := map[uint32]load{
		unix.NFT_META_IIF: {field: fieldInIndex, length: 4}, unix.NFT_META_OIF: {field: fieldOutIndex, length: 4},
		unix.NFT_META_IIFNAME: {field: fieldInName, length: unix.IFNAMSIZ}, unix.NFT_META_OIFNAME: {field: fieldOutName, length: unix.IFNAMSIZ},
		unix.NFT_META_L4PROTO: {field: fieldProtocol, length: 1}, unix.NFT_META_NFPROTO: {field: fieldFamily, length: 1},
		unix.NFT_META_PROTOCOL: {field: fieldEtherType, length: 2}, unix.NFT_META_MARK: {field: fieldMark, length: 4},
	}
	d.load(e.Uint32(unix.NFTA_META_DREG), known[e.Uint32(unix.NFTA_META_KEY)])
}

// setMark gives packets a mark, nil for one that only the packet tells.
func (d *nftDecoder) setMark(value []byte) {
	d.do(Mark, "")
	if len(value) == 4 {
		d.out[len(d.out)-1].SetMark = &MarkIs{Value: binary.NativeEndian.Uint32(value), Mask: 1<<32 - 1}
	}
}

// payload loads a field of a header. What matches the headers of one family stands
// behind a test for that, as nft writes it, so packets of the other never get there.
func (d *nftDecoder) payload(e nfnl.Attributes) {
	if e.Has(unix.NFTA_PAYLOAD_SREG) {
		return
	}
	type at struct{ base, offset uint32 }
	const network, transport = unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	known := map[at]fieldKind{
		{network, 12}: fieldSource, {network, 16}: fieldDestination, {network, 8}: fieldHopLimit, {network, 9}: fieldProtocol,
		{transport, 0}: fieldSourcePort, {transport, 2}: fieldDestinationPort, {transport, 13}: fieldTCPFlags,
	}
	if d.ipv6 {
		delete(known, at{network, 12})
		delete(known, at{network, 16})
		delete(known, at{network, 9})
		known[at{network, 8}], known[at{network, 24}] = fieldSource, fieldDestination
		known[at{network, 7}], known[at{network, 6}] = fieldHopLimit, fieldProtocol
	}
	length := int(e.Uint32(unix.NFTA_PAYLOAD_LEN))
	l := load{field: known[at{e.Uint32(unix.NFTA_PAYLOAD_BASE), e.Uint32(unix.NFTA_PAYLOAD_OFFSET)}], length: length}
	if l.field == fieldSourcePort && length == 1 {
		l.field = fieldICMPType
	}
	if want := map[fieldKind]int{fieldSourcePort: 2, fieldDestinationPort: 2}[l.field]; want != 0 && want != length {
		l.field = fieldOther
	}
	d.load(e.Uint32(unix.NFTA_PAYLOAD_DREG), l)
}

// fib asks the routing table.
func (d *nftDecoder) fib(e nfnl.Attributes) {
	const bySource, byDestination, present = unix.NFTA_FIB_F_SADDR, unix.NFTA_FIB_F_DADDR, unix.NFTA_FIB_F_PRESENT
	result, flags := e.Uint32(unix.NFTA_FIB_RESULT), e.Uint32(unix.NFTA_FIB_FLAGS)
	l := load{length: 4}
	switch {
	case result == unix.NFT_FIB_RESULT_ADDRTYPE && flags&byDestination != 0:
		l.field = fieldDestinationType
	case result == unix.NFT_FIB_RESULT_ADDRTYPE && flags&bySource != 0:
		l.field = fieldSourceType
	case flags&bySource != 0:
		l.field = fieldReverseRoute
		if flags&present != 0 {
			l.length = 1
		}
	}
	d.load(e.Uint32(unix.NFTA_FIB_DREG), l)
}

func (d *nftDecoder) bitwise(e nfnl.Attributes) {
	l := d.loaded[register(e.Uint32(unix.NFTA_BITWISE_SREG))]
	mask, xor := e.Get(unix.NFTA_BITWISE_MASK).Get(unix.NFTA_DATA_VALUE), e.Get(unix.NFTA_BITWISE_XOR).Get(unix.NFTA_DATA_VALUE)
	if l.mask != nil || len(mask) != l.length || !bytes.Equal(xor, make([]byte, len(mask))) {
		l = load{}
	}
	l.mask = mask
	d.load(e.Uint32(unix.NFTA_BITWISE_DREG), l)
}

// compare ends a match.
func (d *nftDecoder) compare(e nfnl.Attributes) {
	l := d.loaded[register(e.Uint32(unix.NFTA_CMP_SREG))]
	value := e.Get(unix.NFTA_CMP_DATA).Get(unix.NFTA_DATA_VALUE)
	op := e.Uint32(unix.NFTA_CMP_OP)
	if l.field == fieldState && l.mask != nil && isZero(value) {
		// ct state a,b: a bit of the mask is there, or none is.
		d.matches = append(d.matches, Match{Not: op == unix.NFT_CMP_EQ, Test: stateOf(l.mask)})
		return
	}
	const destinationNAT = 0x20 // IPS_DST_NAT, which no packet here has
	if l.field == fieldStatus && len(l.mask) == 4 && binary.NativeEndian.Uint32(l.mask) == destinationNAT && isZero(value) {
		d.matches = append(d.matches, Match{Not: op == unix.NFT_CMP_EQ, Test: Never{}})
		return
	}
	switch op {
	case unix.NFT_CMP_EQ, unix.NFT_CMP_NEQ:
		test, ok := d.test(l, value)
		if !ok {
			d.notUnderstood("a comparison")
			return
		}
		d.matches = append(d.matches, Match{Not: op == unix.NFT_CMP_NEQ, Test: test})
	default:
		low, high, ok := bounds(op, value)
		if !ok {
			d.notUnderstood("a comparison")
			return
		}
		d.within(l, low, high, false)
	}
}

// bounds returns the first and last value that a comparison of a 16 bit number allows.
func bounds(op uint32, value []byte) (low, high []byte, ok bool) {
	if len(value) != 2 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint16(value)
	first, last := uint16(0), uint16(65535)
	switch {
	case op == unix.NFT_CMP_LT && n > 0:
		last = n - 1
	case op == unix.NFT_CMP_LTE:
		last = n
	case op == unix.NFT_CMP_GT && n < 65535:
		first = n + 1
	case op == unix.NFT_CMP_GTE:
		first = n
	default:
		return nil, nil, false
	}
	return binary.BigEndian.AppendUint16(nil, first), binary.BigEndian.AppendUint16(nil, last), true
}

func (d *nftDecoder) between(e nfnl.Attributes) {
	l := d.loaded[register(e.Uint32(unix.NFTA_RANGE_SREG))]
	low, high := e.Get(unix.NFTA_RANGE_FROM_DATA).Get(unix.NFTA_DATA_VALUE), e.Get(unix.NFTA_RANGE_TO_DATA).Get(unix.NFTA_DATA_VALUE)
	d.within(l, low, high, e.Uint32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ)
}

func (d *nftDecoder) within(l load, low, high []byte, not bool) {
	test, ok := rangeTest(l, low, high)
	if !ok {
		d.notUnderstood("a range")
		return
	}
	d.matches = append(d.matches, Match{Not: not, Test: test})
}

// rangeTest tests for values from low to high.
func rangeTest(l load, low, high []byte) (Test, bool) {
	if l.mask != nil || len(low) != len(high) {
		return nil, false
	}
	switch l.field {
	case fieldSourcePort, fieldDestinationPort:
		if len(low) != 2 {
			return nil, false
		}
		t := Ports{Source: l.field == fieldSourcePort, Destination: l.field == fieldDestinationPort}
		t.Ranges = [][2]uint16{{binary.BigEndian.Uint16(low), binary.BigEndian.Uint16(high)}}
		return t, true
	case fieldSource, fieldDestination:
		first, ok1 := netip.AddrFromSlice(low)
		last, ok2 := netip.AddrFromSlice(high)
		return AddressRange{Destination: l.field == fieldDestination, First: first, Last: last}, ok1 && ok2
	}
	return nil, false
}

// test tests a field for a value.
func (d *nftDecoder) test(l load, value []byte) (t Test, ok bool) {
	switch l.field {
	case fieldInIndex, fieldOutIndex:
		if len(value) != 4 {
			return nil, false
		}
		name := d.linkName(binary.NativeEndian.Uint32(value))
		return Interface{Out: l.field == fieldOutIndex, Name: name}, l.mask == nil
	case fieldInName, fieldOutName:
		name := unix.ByteSliceToString(value)
		// A name that is compared with fewer bytes, and no zero at their end, is a
		// prefix.
		return Interface{Out: l.field == fieldOutName, Name: name, Prefix: len(value) < unix.IFNAMSIZ && len(name) == len(value)}, l.mask == nil
	case fieldSource, fieldDestination:
		p, ok := d.prefix(value, l.mask)
		return Address{Destination: l.field == fieldDestination, Prefix: p}, ok
	case fieldSourcePort, fieldDestinationPort:
		return rangeTest(l, value, value)
	case fieldMark:
		return markTest(l, value)
	case fieldState:
		return stateOf(value), l.mask == nil && len(value) == 4
	}
	return d.byteTest(l, value)
}

// byteTest tests the fields that are numbers of few bits.
func (d *nftDecoder) byteTest(l load, value []byte) (t Test, ok bool) {
	if len(value) == 0 || l.mask != nil && l.field != fieldTCPFlags {
		return nil, false
	}
	switch l.field {
	case fieldProtocol:
		return Protocol{value[0]}, true
	case fieldFamily:
		return Fixed{d.ipv6 == (value[0] == unix.NFPROTO_IPV6)}, true
	case fieldEtherType:
		return Fixed{d.ipv6 == (len(value) == 2 && binary.BigEndian.Uint16(value) == unix.ETH_P_IPV6)}, true
	case fieldICMPType:
		return ICMP{value[0]}, true
	case fieldHopLimit:
		return HopLimit{value[0]}, true
	case fieldTCPFlags:
		if len(l.mask) != 1 {
			return nil, false
		}
		return Flags{Mask: l.mask[0], Value: value[0]}, true
	case fieldReverseRoute:
		// That there is none is 0; which one there is, is not known here.
		return Fixed{!isZero(value)}, isZero(value) || l.length == 1
	case fieldSourceType, fieldDestinationType:
		if len(value) != 4 {
			return nil, false
		}
		kind, ok := map[uint32]Kind{unix.RTN_UNICAST: Guest, unix.RTN_LOCAL: Host, unix.RTN_BROADCAST: Broadcast, unix.RTN_MULTICAST: Multicast}[binary.NativeEndian.Uint32(value)]
		return AddressType{Destination: l.field == fieldDestinationType, Kinds: []Kind{kind}}, ok
	}
	return nil, false
}

func markTest(l load, value []byte) (Test, bool) {
	if len(value) != 4 || l.mask != nil && len(l.mask) != 4 {
		return nil, false
	}
	m := MarkIs{Value: binary.NativeEndian.Uint32(value), Mask: 1<<32 - 1}
	if l.mask != nil {
		m.Mask = binary.NativeEndian.Uint32(l.mask)
	}
	return m, true
}

// stateOf returns the test for states whose bits are set (enum ip_conntrack_info).
func stateOf(mask []byte) State {
	const established, isNew, untracked = 2, 8, 64
	if len(mask) != 4 {
		return State{}
	}
	is := binary.NativeEndian.Uint32(mask)
	return State{New: is&isNew != 0, Established: is&established != 0, Untracked: is&untracked != 0}
}

// prefix returns the prefix of an address, which nft shortens to whole bytes, under a
// mask of leading ones, if any.
func (d *nftDecoder) prefix(value, mask []byte) (netip.Prefix, bool) {
	full := make([]byte, 4)
	if d.ipv6 {
		full = make([]byte, 16)
	}
	if len(value) > len(full) || len(value) == 0 {
		return netip.Prefix{}, false
	}
	length := 8 * len(value)
	if mask != nil {
		length = 0
		for _, b := range mask {
			length += bits.OnesCount8(b)
		}
	}
	copy(full, value)
	addr, _ := netip.AddrFromSlice(full)
	p := netip.PrefixFrom(addr, length)
	return p, p.IsValid() && p == p.Masked()
}

func isZero(value []byte) bool { return len(strings.Trim(string(value), "\x00")) == 0 }
