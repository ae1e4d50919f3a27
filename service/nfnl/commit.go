package nfnl

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batchGeneration is NFNL_BATCH_GENID.
const batchGeneration = 1

// Port returns the socket's netlink port, which the kernel announces its changes with.
func (c *Conn) Port() uint32 { return c.conn.PID() }

// Generation returns the generation of the ruleset, which every commit of any program
// changes.
func (c *Conn) Generation() (generation uint32, err error) {
	const id = 1 // NFTA_GEN_ID
	err = c.Get(unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, nil, func(body Attributes) { generation = body.Uint32(id) })
	return generation, err
}

// Commit sends messages as one transaction, which the kernel refuses with ERESTART if
// the ruleset is of another generation by then.
func (c *Conn) Commit(generation uint32, messages []netlink.Message) error {
	begin, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: batchGeneration, Data: binary.BigEndian.AppendUint32(nil, generation)},
	})
	if err != nil {
		return err
	}
	batch := []netlink.Message{limit(unix.NFNL_MSG_BATCH_BEGIN, begin)}
	batch = append(batch, messages...)
	// Kernels before 6.13 ignore it at the batch's end.
	batch[len(batch)-1].Header.Flags |= netlink.Acknowledge
	batch = append(batch, limit(unix.NFNL_MSG_BATCH_END, nil))
	if _, err := c.conn.SendMessages(batch); err != nil {
		return fmt.Errorf("sending a transaction to nf_tables: %w", err)
	}
	// The first answer decides: refusals come before the confirmation.
	_, err = c.conn.Receive()
	return err
}

// limit returns the message that begins or ends a batch.
func limit(kind int, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, attrs...),
	}
}
