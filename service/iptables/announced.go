package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// Attributes of rules and tables in nf_tables' messages.
const (
	attrTable  = 1 // NFTA_RULE_TABLE, NFTA_TABLE_NAME
	attrChain  = 2 // NFTA_RULE_CHAIN
	attrHandle = 3 // NFTA_RULE_HANDLE

	attrExpressions = 4 // NFTA_RULE_EXPRESSIONS

	attrTableHandle = 4 // NFTA_TABLE_HANDLE
)

// announceBuffer holds what is announced of some 200 networks that are made at once.
const announceBuffer = 4 << 20

// listener receives what nf_tables announces while iptables-nft runs: the handles of
// the rules that it makes, which no program of iptables' prints.
type listener struct{ conn *netlink.Conn }

// sockets are the backend's connections with nf_tables. They last: the kernel closes
// one only when it has destroyed all that earlier commits deleted, which takes tens of
// milliseconds.
type sockets struct {
	conn      *nfnl.Conn
	announces *listener
}

// kernel returns the connection for requests, in the network namespace of the thread
// that first asks for it.
func (b *Backend) kernel(ctx context.Context) (conn *nfnl.Conn, err error) {
	if b.sockets.conn == nil {
		if b.sockets.conn, err = nfnl.Open(ctx, 0); err != nil {
			return nil, fmt.Errorf("opening a socket to nf_tables: %w", err)
		}
	}
	return b.sockets.conn, b.sockets.conn.Within(ctx)
}

// hangUp closes the connection after an error: answers may be left in it.
func (b *Backend) hangUp() {
	if b.sockets.conn != nil {
		_ = b.sockets.conn.Close()
		b.sockets.conn = nil
	}
}

// listen returns the listener, which hears what follows.
func (b *Backend) listen() (*listener, error) {
	if b.sockets.announces == nil {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{})
		if err != nil {
			return nil, fmt.Errorf("opening a socket for what nf_tables announces: %w", err)
		}
		if err := conn.SetReadBuffer(announceBuffer); err != nil {
			return nil, errors.Join(fmt.Errorf("sizing the receive buffer: %w", err), conn.Close())
		}
		b.sockets.announces = &listener{conn}
	}
	l := b.sockets.announces
	buffer := make([]byte, 1<<16)
	for {
		if _, err := l.read(buffer); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return nil, fmt.Errorf("reading what nf_tables announced: %w", err)
		}
	}
	if err := l.conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, fmt.Errorf("listening to nf_tables: %w", err)
	}
	return l, nil
}

// stop stops listening. A failure is harmless: what is heard is read before the next
// use.
func (l *listener) stop() { _ = l.conn.LeaveGroup(unix.NFNLGRP_NFTABLES) }

var errOthers = errors.New("another program changed rules meanwhile")

// announced is a rule that was made.
type announced struct {
	handle      uint64
	expressions []byte // of a rule in the chain for new ones
}

// made returns the rules that so many programs made, chain by chain in the order in
// which they made them. A commit is announced before the program that
// sends it learns of it, with a netlink port that no other program has.
func (l *listener) made(programs int) (map[Chain][]announced, error) {
	out, ports := make(map[Chain][]announced), make(map[uint32]bool)
	buffer := make([]byte, 1<<16)
	for {
		n, err := l.read(buffer)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading what nf_tables announces: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("reading what nf_tables announces: %w", err)
		}
		for _, m := range messages {
			ports[m.Header.Pid] = true
			if netlink.HeaderType(m.Header.Type) == nfnl.Type(unix.NFT_MSG_NEWRULE) {
				c, rule := announcedRule(m.Data)
				out[c] = append(out[c], rule)
			}
		}
	}
	if len(ports) != programs {
		return nil, errOthers
	}
	return out, nil
}

func announcedRule(data []byte) (Chain, announced) {
	body := nfnl.Body(data)
	c := Chain{Table: body.Text(attrTable), Name: body.Text(attrChain)}
	c.IPv6 = len(data) > 0 && data[0] == unix.NFPROTO_IPV6
	rule := announced{handle: body.Uint64(attrHandle)}
	if c.Name == newChain {
		rule.expressions = bytes.Clone(body.Get(attrExpressions))
	}
	return c, rule
}

// read reads one datagram without waiting.
func (l *listener) read(buffer []byte) (n int, err error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return true
			}
		}
	})
	return n, errors.Join(ctlErr, err)
}

// tableID is a table of a family.
type tableID struct {
	ipv6 bool
	name string
}

func (c Chain) tableID() tableID { return tableID{c.IPv6, c.Table} }

func protocolFamily(ipv6 bool) byte {
	if ipv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// tableHandles returns the handles of tables, which tell a table from one that was
// made under the same name later.
func tableHandles(conn *nfnl.Conn, tables []tableID) (map[tableID]uint64, error) {
	out := make(map[tableID]uint64, len(tables))
	for _, t := range tables {
		err := conn.Get(unix.NFT_MSG_GETTABLE, protocolFamily(t.ipv6), []netlink.Attribute{nfnl.Named(attrTable, t.name)}, func(body nfnl.Attributes) {
			out[t] = body.Uint64(attrTableHandle)
		})
		if err == nil && out[t] == 0 {
			err = errors.New("the kernel names no handle")
		}
		if err != nil {
			return nil, fmt.Errorf("looking up the table %s: %w", t.name, err)
		}
	}
	return out, nil
}

// execute runs a plan's scripts, and learns the handles of the rules that they make.
func (b *Backend) execute(ctx context.Context, p plan) error {
	v4, v6 := p.scripts()
	scripts := [2]string{v4.text(), v6.text()}
	programs := 0
	for i, p := range b.families.Both {
		if scripts[i] != "" && p.Variant == xtables.VariantNFT {
			programs++
		}
	}
	if programs == 0 {
		return b.families.restore(ctx, scripts)
	}
	l, err := b.listen()
	if err != nil {
		b.log.Debug("rules will be deleted by their content", "error", err)
		return b.families.restore(ctx, scripts)
	}
	defer l.stop()
	if err := b.families.restore(ctx, scripts); err != nil {
		return err
	}
	if err := b.learn(ctx, l, programs, p.inserted()); err != nil {
		b.log.Debug("rules will be deleted by their content", "error", err)
	}
	return nil
}
