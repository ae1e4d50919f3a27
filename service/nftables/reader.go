package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

const (
	readTimeout  = 10 * time.Second
	readAttempts = 20
	readPause    = 2 * time.Millisecond
)

// errChanging says that the ruleset changed while it was read.
var errChanging = errors.New("the ruleset keeps changing while it is read")

// reader reads the table on connections of its own: reading asks for no
// ownership, so counters can be read during a change. Each connection serves
// once. An answer that was not read to its end cannot be taken for the next.
type reader struct {
	netNS int
	loose bool // as the planner's
}

// session is one connection of a reader. It goes through answers one by one;
// the library would keep all of them and take each rule apart.
type session struct{ conn *netlink.Conn }

// read runs do until nothing has changed during a dump: the kernel then says
// that it may have left something out. Any program's change will do.
func (r reader) read(ctx context.Context, do func(session) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for attempt := range readAttempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.once(ctx, do); !errors.Is(err, errChanging) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(attempt+1) * readPause):
		}
	}
	return errChanging
}

func (r reader) once(ctx context.Context, do func(session) error) (err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: r.netNS})
	if err != nil {
		return fmt.Errorf("opening a netfilter netlink socket for reading: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	return do(session{conn})
}

// dump goes through all objects of a kind in the table.
func (s session) dump(message int, attrs []netlink.Attribute, each func(body []byte)) error {
	return s.request(message, netlink.Request|netlink.Dump, unix.NFPROTO_INET, attrs, each)
}

// get asks for one object.
func (s session) get(message int, family byte, attrs []netlink.Attribute, each func(body []byte)) error {
	return s.request(message, netlink.Request, family, attrs, each)
}

func (s session) request(message int, flags netlink.HeaderFlags, family byte, attrs []netlink.Attribute, each func([]byte)) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	m := netlink.Message{
		Header: netlink.Header{Type: kind(message), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	}
	sent, err := s.conn.Send(m)
	if err != nil {
		return err
	}
	interrupted := false
	for m, err := range s.conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if m.Header.Sequence != sent.Header.Sequence || len(m.Data) < genHeader {
			continue
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		each(m.Data[genHeader:])
	}
	if interrupted {
		return errChanging
	}
	return nil
}

func named(typ uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(name), 0)}
}

// counters gives each named counter of the table to do.
func (s session) counters(do func(name string, packets, bytes uint64)) error {
	attrs := []netlink.Attribute{
		named(unix.NFTA_OBJ_TABLE, ruleset.TableName),
		{Type: unix.NFTA_OBJ_TYPE, Data: binary.BigEndian.AppendUint32(nil, objectCounter)},
	}
	return s.dump(unix.NFT_MSG_GETOBJ, attrs, func(body []byte) {
		typ, _ := find(body, unix.NFTA_OBJ_TYPE)
		if number32(typ) != objectCounter || findText(body, unix.NFTA_OBJ_TABLE) != ruleset.TableName {
			return
		}
		c := counterOf(body)
		do(c.name, c.packets, c.bytes)
	})
}

func counterOf(body []byte) counter {
	data, _ := find(body, unix.NFTA_OBJ_DATA)
	packets, _ := find(data, unix.NFTA_COUNTER_PACKETS)
	bytes, _ := find(data, unix.NFTA_COUNTER_BYTES)
	return counter{findText(body, unix.NFTA_OBJ_NAME), number64(packets), number64(bytes)}
}
