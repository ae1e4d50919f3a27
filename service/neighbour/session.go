package neighbour

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const readTimeout = 10 * time.Second

// errChanged says that the ruleset changed while it was read, or between
// reading and writing.
var errChanged = errors.New("the ruleset keeps changing")

// session reads nf_tables over one connection, in the network namespace of the
// calling thread. It takes apart only what it needs: the tables are others',
// and hold whatever others put there.
type session struct{ conn *netlink.Conn }

func openSession(ctx context.Context) (session, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return session{}, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	deadline := time.Now().Add(readTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return session{}, errors.Join(err, conn.Close())
	}
	return session{conn}, nil
}

// genHeader is the length of struct nfgenmsg, which begins every message.
const genHeader = 4

// dump goes through all objects of a kind that a family has, or those that the
// attributes select.
func (s session) dump(message int, family byte, attrs []netlink.Attribute, each func(attributes)) error {
	return s.request(message, netlink.Request|netlink.Dump, family, attrs, each)
}

func (s session) request(message int, flags netlink.HeaderFlags, family byte, attrs []netlink.Attribute, each func(attributes)) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	answers, err := s.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, unix.EINTR) {
		return errChanged
	}
	if err != nil {
		return err
	}
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return errChanged
		}
		if len(m.Data) > genHeader {
			each(attributesOf(m.Data[genHeader:]))
		}
	}
	return nil
}

// generation numbers the state of all rulesets of the network namespace. Every
// transaction of anybody counts it up.
func (s session) generation() (id uint32, err error) {
	err = s.request(unix.NFT_MSG_GETGEN, netlink.Request, unix.AF_UNSPEC, nil, func(a attributes) {
		id = a.number(unix.NFTA_GEN_ID)
	})
	return id, err
}

func (s session) close() error { return s.conn.Close() }

// attributes are netlink attributes by type, the first of each.
type attributes map[uint16][]byte

// attributesOf reads as much as is well-formed.
func attributesOf(data []byte) attributes {
	out := make(attributes)
	for typ, value := range each(data) {
		if _, ok := out[typ]; !ok {
			out[typ] = value
		}
	}
	return out
}

// each walks attributes in their order, up to the first that is malformed.
func each(data []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
		for len(data) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(data))
			if n < unix.SizeofNlAttr || n > len(data) {
				return
			}
			typ := binary.NativeEndian.Uint16(data[2:]) &^ flags
			if !yield(typ, data[unix.SizeofNlAttr:n]) {
				return
			}
			data = data[min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(data)):]
		}
	}
}

func (a attributes) nested(typ uint16) attributes { return attributesOf(a[typ]) }

// text is a string without its closing zero.
func (a attributes) text(typ uint16) string {
	value := a[typ]
	if n := len(value); n > 0 && value[n-1] == 0 {
		value = value[:n-1]
	}
	return string(value)
}

// number is a 32-bit number, or 0 where there is none.
func (a attributes) number(typ uint16) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a attributes) number64(typ uint16) uint64 {
	if len(a[typ]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[typ])
}

func (a attributes) has(typ uint16) bool {
	_, ok := a[typ]
	return ok
}

func named(typ uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(name), 0)}
}
