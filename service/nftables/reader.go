package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
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

// reader reads the table on a connection of its own, so that counters can be
// read during a change: reading asks for no ownership. It goes through answers
// one by one; the library would keep all of them and take each rule apart.
type reader struct {
	mu   sync.Mutex
	conn *netlink.Conn
}

func openReader(netNS int) (*reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS})
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket for reading: %w", err)
	}
	return &reader{conn: conn}, nil
}

func (r *reader) close() error { return r.conn.Close() }

// steady reads until nothing has changed during a dump: the kernel then says
// that it may have left something out. Any program's change will do.
func (r *reader) steady(ctx context.Context, read func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(readTimeout); !ok || limit.Before(deadline) {
		deadline = limit
	}
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for attempt := range readAttempts {
		if err := read(); !errors.Is(err, errChanging) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(attempt+1) * readPause):
		}
	}
	return errChanging
}

// dump goes through all objects of a kind in the table.
func (r *reader) dump(message int, attrs []netlink.Attribute, each func(body []byte)) error {
	return r.request(message, netlink.Request|netlink.Dump, unix.NFPROTO_INET, attrs, each)
}

// get asks for one object.
func (r *reader) get(message int, family byte, attrs []netlink.Attribute, each func(body []byte)) error {
	return r.request(message, netlink.Request, family, attrs, each)
}

func (r *reader) request(message int, flags netlink.HeaderFlags, family byte, attrs []netlink.Attribute, each func([]byte)) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	m := netlink.Message{
		Header: netlink.Header{Type: kind(message), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	}
	sent, err := r.conn.Send(m)
	if err != nil {
		return err
	}
	interrupted := false
	for m, err := range r.conn.ReceiveIter() {
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
func (r *reader) counters(do func(name string, packets, bytes uint64)) error {
	attrs := []netlink.Attribute{
		named(unix.NFTA_OBJ_TABLE, ruleset.TableName),
		{Type: unix.NFTA_OBJ_TYPE, Data: binary.BigEndian.AppendUint32(nil, objectCounter)},
	}
	return r.dump(unix.NFT_MSG_GETOBJ, attrs, func(body []byte) {
		typ, _ := find(body, unix.NFTA_OBJ_TYPE)
		if number32(typ) != objectCounter || findText(body, unix.NFTA_OBJ_TABLE) != ruleset.TableName {
			return
		}
		data, _ := find(body, unix.NFTA_OBJ_DATA)
		packets, _ := find(data, unix.NFTA_COUNTER_PACKETS)
		bytes, _ := find(data, unix.NFTA_COUNTER_BYTES)
		do(findText(body, unix.NFTA_OBJ_NAME), number64(packets), number64(bytes))
	})
}
