package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Generation is a number that each nftables transaction in a node raises by
// one.
func Generation(node host.Node) (id uint32, err error) {
	err = node.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		answers, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
		})
		if err != nil {
			return err
		}
		if id, err = generationOf(answers); err == nil && id == 0 {
			err = errors.New("the answer does not say it")
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("asking %s for its nftables generation: %w", node.Name(), err)
	}
	return id, nil
}

func generationOf(answers []netlink.Message) (id uint32, err error) {
	const header, genID = 4, 1 // struct nfgenmsg; NFTA_GEN_ID, linux/netfilter/nf_tables.h
	for _, answer := range answers {
		if len(answer.Data) < header {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(answer.Data[header:])
		if err != nil {
			return 0, err
		}
		attributes.ByteOrder = binary.BigEndian
		for attributes.Next() {
			if attributes.Type() == genID {
				id = attributes.Uint32()
			}
		}
		if err := attributes.Err(); err != nil {
			return 0, err
		}
	}
	return id, nil
}
