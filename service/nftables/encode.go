package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Registers, as nft uses them, of 16 bytes each.
const (
	register1 = 1
	register2 = 2
	register3 = 3
	register4 = 4
)

// Offsets and lengths of addresses in IP headers.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
)

const (
	ifNameSize = 16
	// icmpxPortUnreachable is NFT_REJECT_ICMPX_PORT_UNREACH.
	icmpxPortUnreachable = 1
	// objectCounter is NFT_OBJECT_COUNTER.
	objectCounter = unix.NFT_OBJECT_COUNTER
)

// encoder collects the expressions of one rule, and what its matches have
// already established.
type encoder struct {
	exprs    []expr.Any
	family   byte // NFPROTO_IPV4 or _IPV6 once matched
	protocol bool // the transport protocol has been matched
	err      error
}

// encodeRule returns a rule's expressions, the same that nft would send, so that
// nft lists them as the rule's text.
func encodeRule(r ruleset.Rule) ([]expr.Any, error) {
	e := &encoder{exprs: make([]expr.Any, 0, 8)}
	for _, m := range r.Matches {
		e.match(m)
	}
	if r.Counter != "" {
		e.add(&expr.Objref{Type: objectCounter, Name: r.Counter})
	}
	e.action(r.Action)
	if e.err != nil {
		return nil, fmt.Errorf("encoding rule %q: %w", r, e.err)
	}
	return e.exprs, nil
}

func (e *encoder) add(exprs ...expr.Any) { e.exprs = append(e.exprs, exprs...) }

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

func (e *encoder) match(m ruleset.Match) {
	switch m := m.(type) {
	case ruleset.Family:
		e.matchFamily(m.IPv6)
	case ruleset.InDevice:
		e.compareMeta(expr.MetaKeyIIFNAME, interfaceName(m.Name))
	case ruleset.OutDevice:
		e.compareMeta(expr.MetaKeyOIFNAME, interfaceName(m.Name))
	case ruleset.Source:
		e.matchAddress(m.Prefix, source4, source6, expr.CmpOpEq)
	case ruleset.Destination:
		op := expr.CmpOpEq
		if m.Not {
			op = expr.CmpOpNeq
		}
		e.matchAddress(m.Prefix, destination4, destination6, op)
	case ruleset.Protocol:
		e.matchProtocol(m.UDP)
	case ruleset.Replies:
		e.matchState(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	case ruleset.Tracked:
		e.matchState(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED | expr.CtStateBitNEW)
	case ruleset.Lookup:
		e.lookup(m)
	case ruleset.Uplink:
		e.compareMeta(interfaceKey(m.Out), binaryutil.NativeEndian.PutUint32(uint32(m.Interface.Index)))
	case ruleset.Untracked:
		e.matchState(expr.CtStateBitINVALID | expr.CtStateBitUNTRACKED)
	default:
		e.fail("unknown match %T", m)
	}
}

func interfaceKey(out bool) expr.MetaKey {
	if out {
		return expr.MetaKeyOIF
	}
	return expr.MetaKeyIIF
}

func (e *encoder) compareMeta(key expr.MetaKey, value []byte) {
	e.add(&expr.Meta{Key: key, Register: register1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register1, Data: value})
}

// matchFamily makes sure that an IP header of the family follows. It does so
// once per rule: nft leaves the match out of the listing before addresses.
func (e *encoder) matchFamily(v6 bool) {
	want := byte(unix.NFPROTO_IPV4)
	if v6 {
		want = unix.NFPROTO_IPV6
	}
	switch e.family {
	case want:
	case 0:
		e.family = want
		e.compareMeta(expr.MetaKeyNFPROTO, []byte{want})
	default:
		e.fail("IPv4 and IPv6 in one rule")
	}
}

// matchAddress loads as many bytes as a prefix that ends on a byte boundary
// has; others are masked. nft lists the former as a prefix only in that form.
func (e *encoder) matchAddress(p netip.Prefix, offset4, offset6 uint32, op expr.CmpOp) {
	if !p.IsValid() || p != p.Masked() {
		e.fail("%v is not a prefix", p)
		return
	}
	v6 := p.Addr().Is6()
	e.matchFamily(v6)
	addr, offset := p.Addr().AsSlice(), offset4
	if v6 {
		offset = offset6
	}
	size := len(addr)
	if p.Bits() > 0 && p.Bits()%8 == 0 {
		size = p.Bits() / 8
	}
	e.add(&expr.Payload{DestRegister: register1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)})
	if p.Bits() == 0 || p.Bits()%8 != 0 {
		e.mask(netmask(p.Bits(), size))
	}
	e.add(&expr.Cmp{Op: op, Register: register1, Data: addr[:size]})
}

func (e *encoder) mask(mask []byte) {
	e.add(&expr.Bitwise{SourceRegister: register1, DestRegister: register1,
		Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))})
}

func netmask(bits, size int) []byte {
	out := make([]byte, size)
	for i := range bits {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}

func (e *encoder) matchProtocol(udp bool) {
	protocol := byte(unix.IPPROTO_TCP)
	if udp {
		protocol = unix.IPPROTO_UDP
	}
	e.protocol = true
	e.compareMeta(expr.MetaKeyL4PROTO, []byte{protocol})
}

func (e *encoder) matchState(states uint32) {
	e.add(&expr.Ct{Key: expr.CtKeySTATE, Register: register1})
	e.mask(binaryutil.NativeEndian.PutUint32(states))
	e.add(&expr.Cmp{Op: expr.CmpOpNeq, Register: register1, Data: make([]byte, 4)})
}

func (e *encoder) action(a ruleset.Action) {
	switch a := a.(type) {
	case nil:
	case ruleset.Accept:
		e.add(&expr.Verdict{Kind: expr.VerdictAccept})
	case ruleset.Drop:
		e.add(&expr.Verdict{Kind: expr.VerdictDrop})
	case ruleset.Goto:
		e.add(&expr.Verdict{Kind: expr.VerdictGoto, Chain: a.Chain})
	case ruleset.Jump:
		e.add(&expr.Verdict{Kind: expr.VerdictJump, Chain: a.Chain})
	case ruleset.Return:
		e.add(&expr.Verdict{Kind: expr.VerdictReturn})
	case ruleset.ResetTCP:
		if !e.protocol {
			e.fail("a TCP reset needs a match of the protocol")
		}
		e.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case ruleset.Unreachable:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: icmpxPortUnreachable})
	case ruleset.Dispatch:
		e.dispatch(a)
	case ruleset.Masquerade:
		e.masquerade(a)
	case ruleset.SNAT:
		e.snat(a)
	default:
		e.fail("unknown action %T", a)
	}
}

func (e *encoder) dispatch(a ruleset.Dispatch) {
	e.load(a.Field, 0)
	// Without IsDestRegSet the lookup would be a match, not a verdict.
	e.add(&expr.Lookup{SourceRegister: register1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: a.Map})
}

func (e *encoder) masquerade(a ruleset.Masquerade) {
	m := &expr.Masq{}
	if a.Ports != (ruleset.Ports{}) {
		m.ToPorts = true
		m.RegProtoMin, m.RegProtoMax = e.ports(a.Ports, register1, register2)
	}
	e.add(m)
}

func (e *encoder) snat(a ruleset.SNAT) {
	n := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4}
	if a.First.Is6() {
		n.Family = unix.NFPROTO_IPV6
	}
	if uint32(e.family) != n.Family || a.First.Is6() != a.Last.Is6() {
		e.fail("translation to %v-%v needs a match of that family", a.First, a.Last)
		return
	}
	e.add(&expr.Immediate{Register: register1, Data: a.First.AsSlice()})
	n.RegAddrMin = register1
	next := uint32(register2)
	if a.First != a.Last {
		e.add(&expr.Immediate{Register: register2, Data: a.Last.AsSlice()})
		n.RegAddrMax, next = register2, register3
	}
	if a.Ports != (ruleset.Ports{}) {
		n.RegProtoMin, n.RegProtoMax = e.ports(a.Ports, next, next+1)
		n.Specified = true
	}
	e.add(n)
}

// ports loads a range, or with one port only the lower end, as nft does.
func (e *encoder) ports(p ruleset.Ports, low, high uint32) (lowRegister, highRegister uint32) {
	if !e.protocol {
		e.fail("ports need a match of the protocol")
	}
	e.add(&expr.Immediate{Register: low, Data: binary.BigEndian.AppendUint16(nil, p.First)})
	if p.First == p.Last {
		return low, 0
	}
	e.add(&expr.Immediate{Register: high, Data: binary.BigEndian.AppendUint16(nil, p.Last)})
	return low, high
}

// interfaceName pads a name to the kernel's 16 bytes. A shorter comparison
// would match all names that begin so: virbr1 also virbr10.
func interfaceName(name string) []byte {
	out := make([]byte, ifNameSize)
	copy(out[:ifNameSize-1], name)
	return out
}
