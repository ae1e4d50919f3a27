package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/attribute"
)

// tableBuffer holds what the kernel tells of the flush of a table of a thousand
// networks. A bound, not an allocation; what does not fit counts as a change.
const tableBuffer = 8 << 20

// TableConfig says which nf_tables table is watched.
type TableConfig struct {
	NetNS  netns.NsHandle // zero: that of the calling thread
	Family byte           // such as unix.NFPROTO_INET
	Name   string
	// Own is the netlink port whose changes are the owner's own.
	Own uint32
	Log *slog.Logger // nil: no log
}

// Table watches a table of nf_tables for the hands of others: another program
// may flush the whole ruleset and knows nothing of who made it. Its methods may
// be called from any goroutine.
type Table struct {
	cfg     TableConfig
	ns      netns.NsHandle
	touched chan struct{}
	cancel  context.CancelFunc
	worker  sync.WaitGroup
}

// WatchTable subscribes and returns; the table need not exist. Close ends it.
func WatchTable(cfg TableConfig) (*Table, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ns, err := ownHandle(cfg.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	t := &Table{cfg: cfg, ns: ns, touched: make(chan struct{}, 1)}
	first, err := t.subscribe()
	if err != nil {
		return nil, errors.Join(err, closeHandle(ns))
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.worker.Go(func() { t.run(ctx, first) })
	return t, nil
}

// Touched says that somebody else changed the table, or that it cannot be told.
// Changes that follow one another before it is read are one.
func (t *Table) Touched() <-chan struct{} { return t.touched }

// Close ends the watch and waits for its goroutine.
func (t *Table) Close() error {
	t.cancel()
	t.worker.Wait()
	return closeHandle(t.ns)
}

func (t *Table) subscribe() (*nl.NetlinkSocket, error) {
	sock, err := nl.SubscribeAt(t.ns, netns.None(), unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("subscribing to changes of nf_tables: %w", err)
	}
	if err := sock.SetReceiveBufferSize(tableBuffer, true); err != nil {
		_ = sock.SetReceiveBufferSize(tableBuffer, false)
	}
	return sock, nil
}

// run reads until the context ends, over a new socket whenever one breaks.
func (t *Table) run(ctx context.Context, sock *nl.NetlinkSocket) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, longestBackoff) {
		if sock != nil {
			err := t.serve(ctx, sock)
			if ctx.Err() != nil {
				return
			}
			t.cfg.Log.Warn("the nftables monitor lost its socket and opens another", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		var err error
		if sock, err = t.subscribe(); err != nil {
			t.cfg.Log.Error("the nftables monitor cannot subscribe", "error", err)
			continue
		}
		t.touch() // nobody looked meanwhile
	}
}

func (t *Table) serve(ctx context.Context, sock *nl.NetlinkSocket) error {
	unblock := context.AfterFunc(ctx, sock.Close)
	defer func() {
		if unblock() {
			sock.Close()
		}
	}()
	for {
		messages, from, err := sock.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			t.touch() // more was told than was read
			continue
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			if t.cfg.foreign(m) {
				t.touch()
				break
			}
		}
	}
}

func (t *Table) touch() {
	select {
	case t.touched <- struct{}{}:
	default:
	}
}

// foreign says whether a message tells of a change of the table by somebody
// else. In the messages of all objects the table's name is attribute 1; in that
// of a new generation, which ends each transaction, it is a number.
func (c TableConfig) foreign(m syscall.NetlinkMessage) bool {
	const header, tableName = 4, 1 // struct nfgenmsg, NFTA_TABLE_NAME
	kind := m.Header.Type
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || kind&0xff == unix.NFT_MSG_NEWGEN || m.Header.Pid == c.Own ||
		len(m.Data) < header || m.Data[0] != c.Family {
		return false
	}
	for typ, value := range attribute.All(m.Data[header:]) {
		if typ == tableName {
			return string(value) == c.Name+"\x00"
		}
	}
	return false
}
