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

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// tableBuffer holds the notifications of the flush of a table of a thousand
// networks. It is a bound, not an allocation; an overflow counts as a change.
const tableBuffer = 8 << 20

// TablesConfig configures Tables.
type TablesConfig struct {
	NetNS netns.NsHandle // zero: that of the calling thread
	// Own is the netlink port whose changes are the service's own, 0 for none.
	Own uint32
	Log *slog.Logger // nil: no log
}

// Tables watches nf_tables for other programs' changes, for subscribers to a table:
// another program may flush the whole ruleset without knowing whose it is. It is
// safe for concurrent use.
type Tables struct {
	cfg    TablesConfig
	ns     netns.NsHandle
	cancel context.CancelFunc
	worker sync.WaitGroup
	batch  batch // for the worker alone

	mu          sync.Mutex
	subscribers map[*Touches]bool
}

// WatchTables starts a watch. Close ends it.
func WatchTables(cfg TablesConfig) (*Tables, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ns, err := ownHandle(cfg.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	t := &Tables{cfg: cfg, ns: ns, subscribers: map[*Touches]bool{}}
	first, err := t.open()
	if err != nil {
		return nil, errors.Join(err, closeHandle(ns))
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.worker.Go(func() { t.run(ctx, first) })
	return t, nil
}

// Subscribe subscribes to changes of these tables, or without any of all, from now on.
// The tables need not exist.
func (t *Tables) Subscribe(tables ...TableID) *Touches {
	out := &Touches{of: t, tables: make(map[TableID]bool, len(tables)), touched: make(chan struct{}, 1), gathered: map[Touch]bool{}}
	for _, id := range tables {
		out.tables[id] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscribers[out] = true
	return out
}

// Close ends the watch and waits for its goroutine.
func (t *Tables) Close() error {
	t.cancel()
	t.worker.Wait()
	return closeHandle(t.ns)
}

func (t *Tables) open() (*nl.NetlinkSocket, error) {
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
func (t *Tables) run(ctx context.Context, sock *nl.NetlinkSocket) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
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
		if sock, err = t.open(); err != nil {
			t.cfg.Log.Error("the nftables monitor cannot subscribe", "error", err)
			continue
		}
		t.lost() // changes meanwhile were missed
	}
}

func (t *Tables) serve(ctx context.Context, sock *nl.NetlinkSocket) error {
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
			t.lost() // notifications overflowed the buffer
			continue
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			t.notify(t.batch.read(m, t.cfg.Own))
		}
	}
}

func (t *Tables) notify(touches []Touch) {
	if len(touches) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.subscribers {
		for _, touch := range touches {
			if len(s.tables) == 0 || s.tables[touch.Table] {
				s.add(touch)
			}
		}
	}
}

// lost notifies every subscriber that any of its tables may have been changed.
func (t *Tables) lost() {
	t.batch = batch{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.subscribers {
		for id := range s.tables {
			s.add(Touch{Table: id})
		}
		if len(s.tables) == 0 {
			s.add(Touch{})
		}
	}
}

// batch collects the tables that one transaction changed. The kernel sends its
// objects first, and names the program in the message of the new generation that
// ends it, all under one lock: consecutive messages belong together.
type batch struct {
	port   uint32
	tables map[TableID]bool
}

// read handles one message and returns the touches to report after it.
func (b *batch) read(m syscall.NetlinkMessage, own uint32) []Touch {
	kind, port := m.Header.Type, m.Header.Pid
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfnl.HeaderLen {
		return nil
	}
	var before []Touch
	if port != b.port { // the end of another one was missed
		before = b.end(Touch{Port: b.port})
	}
	switch {
	case own != 0 && port == own:
		return before
	case kind&0xff == unix.NFT_MSG_NEWGEN:
		return append(before, b.end(author(nfnl.Body(m.Data), port))...)
	}
	id, ok := tableOf(m.Data)
	switch {
	case !ok:
		return before
	case port == 0: // no program did it (a quota is used up), and no generation follows
		return append(before, Touch{Table: id})
	}
	if b.tables == nil {
		b.tables = map[TableID]bool{}
	}
	b.port = port
	b.tables[id] = true
	return before
}

// end returns the touches of the transaction, with its author.
func (b *batch) end(by Touch) (out []Touch) {
	for id := range b.tables {
		by.Table = id
		out = append(out, by)
	}
	*b = batch{}
	return out
}

// author returns the program in the message of a new generation.
func author(body nfnl.Attributes, port uint32) Touch {
	const procPID, procName = 2, 3 // NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
	return Touch{Port: port, PID: int(body.Uint32(procPID)), Program: body.Text(procName)}
}
