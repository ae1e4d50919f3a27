package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

const (
	readAttempts = 20
	readPause    = 2 * time.Millisecond
)

// errChanging means that the ruleset changed during every attempt to read it.
var errChanging = errors.New("the ruleset keeps changing while it is read")

// reader reads the table on connections of its own: reading needs no ownership,
// so counters can be read during a change. Each connection is used once, so that
// the rest of an answer cannot be taken for the next.
type reader struct {
	netNS        int
	userDataOnly bool // see planner
}

// read retries do until nothing changes during its dumps: after a change, by any
// program, the kernel reports that a dump may lack something.
func (r reader) read(ctx context.Context, do func(*nfnl.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, nfnl.Timeout)
	defer cancel()
	for attempt := range readAttempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.once(ctx, do); !errors.Is(err, nfnl.ErrChanged) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(attempt+1) * readPause):
		}
	}
	return errChanging
}

func (r reader) once(ctx context.Context, do func(*nfnl.Conn) error) (err error) {
	conn, err := nfnl.Open(ctx, r.netNS)
	if err != nil {
		return fmt.Errorf("opening a netfilter netlink socket for reading: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return do(conn)
}

// readCounters calls do for each named counter of the table.
func readCounters(conn *nfnl.Conn, do func(name string, packets, bytes uint64)) error {
	attrs := []netlink.Attribute{
		nfnl.Named(unix.NFTA_OBJ_TABLE, ruleset.TableName),
		{Type: unix.NFTA_OBJ_TYPE, Data: binary.BigEndian.AppendUint32(nil, objectCounter)},
	}
	return conn.Dump(unix.NFT_MSG_GETOBJ, unix.NFPROTO_INET, attrs, func(body nfnl.Attributes) {
		if body.Uint32(unix.NFTA_OBJ_TYPE) != objectCounter || body.Text(unix.NFTA_OBJ_TABLE) != ruleset.TableName {
			return
		}
		c := counterOf(body)
		do(c.name, c.packets, c.bytes)
	})
}

func counterOf(body nfnl.Attributes) counter {
	data := body.Get(unix.NFTA_OBJ_DATA)
	return counter{body.Text(unix.NFTA_OBJ_NAME), data.Uint64(unix.NFTA_COUNTER_PACKETS), data.Uint64(unix.NFTA_COUNTER_BYTES)}
}
