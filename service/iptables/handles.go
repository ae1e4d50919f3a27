package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// handles are the kernel's names of rules that the nft variant's programs made. With
// them a rule is deleted at once. To delete one by its content, iptables-nft reads
// its whole chain, of all networks, and compares.
type handles struct {
	tables map[tableID]uint64
	rules  map[string][]uint64        // of each network's installed rules, 0 for unknown
	fresh  map[string]map[Rule]uint64 // of rules that were just made
}

var errUnknownHandle = errors.New("the kernel's name of a rule is unknown")

// learn remembers the handles of the rules that so many programs were to insert. The
// tables are looked up before what was announced is read: had another program made one
// again, with other rules under the same handles, that would be announced.
func (b *Backend) learn(ctx context.Context, l *listener, programs int, inserted map[Chain][]written) error {
	var tables []tableID
	for c := range inserted {
		if !slices.Contains(tables, c.tableID()) {
			tables = append(tables, c.tableID())
		}
	}
	if len(tables) == 0 {
		return nil
	}
	conn, err := b.kernel(ctx)
	if err != nil {
		return err
	}
	are, err := tableHandles(conn, tables)
	if err != nil {
		b.hangUp()
		return err
	}
	made, err := l.made(programs)
	if err != nil {
		return err
	}
	b.handles.renew(are)
	for c, rules := range inserted {
		if len(made[c]) != len(rules) {
			continue // of the legacy variant
		}
		for i, w := range rules {
			b.handles.add(w, made[c][i].handle)
		}
	}
	return nil
}

// renew sets the tables' handles, and forgets the rules if one is another table now.
func (h *handles) renew(are map[tableID]uint64) {
	for t, handle := range are {
		if was, known := h.tables[t]; known && was != handle {
			*h = handles{}
			break
		}
	}
	if h.tables == nil {
		h.tables = make(map[tableID]uint64)
	}
	maps.Copy(h.tables, are)
}

func (h *handles) add(w written, handle uint64) {
	if h.fresh == nil {
		h.fresh = make(map[string]map[Rule]uint64)
	}
	if h.fresh[w.network] == nil {
		h.fresh[w.network] = make(map[Rule]uint64)
	}
	h.fresh[w.network][w.rule] = handle
}

// settle assigns handles to the rules that are installed now, given those before.
func (h *handles) settle(before, now []entry) {
	was := make(map[string]entry, len(before))
	for _, n := range before {
		was[n.network] = n
	}
	rules := make(map[string][]uint64, len(now))
	for _, n := range now {
		old, fresh := h.rules[n.network], h.fresh[n.network]
		if fresh == nil && slices.Equal(was[n.network].rules, n.rules) {
			rules[n.network] = old
			continue
		}
		known := make(map[Rule]uint64, len(old)+len(fresh))
		for i, handle := range old {
			known[was[n.network].rules[i]] = handle
		}
		maps.Copy(known, fresh)
		for _, r := range n.rules {
			rules[n.network] = append(rules[n.network], known[r])
		}
	}
	h.rules, h.fresh = rules, nil
}

// deletions returns the transaction that deletes networks' rules.
func (h *handles) deletions(gone []entry) (b batch) {
	for _, n := range gone {
		known := h.rules[n.network]
		for i, r := range n.rules {
			if i >= len(known) || known[i] == 0 {
				return batch{err: errUnknownHandle}
			}
			b.rule(unix.NFT_MSG_DELRULE, 0, r.Chain, handleAttribute(attrHandle, known[i]))
		}
	}
	return b
}

// attempts bounds how often a transaction is tried while other programs change rules.
const attempts = 3

// removeKnown removes networks' rules by their handles, of both families in one
// transaction. It fails, and changes nothing, unless all of them are there.
func (b *Backend) removeKnown(ctx context.Context, gone []entry) error {
	deletions := b.handles.deletions(gone)
	if deletions.err != nil {
		return deletions.err
	}
	conn, err := b.kernel(ctx)
	if err != nil {
		return err
	}
	if err := b.commit(conn, deletions); err != nil {
		return fmt.Errorf("deleting rules by their handles: %w", err)
	}
	return nil
}

// commit sends a transaction, again if another program was faster.
func (b *Backend) commit(conn *nfnl.Conn, change batch) (err error) {
	b.config.Started.Add(int(conn.Port()))
	for range attempts {
		if err = b.handles.commit(conn, change); err == nil {
			return nil
		}
		if !errors.Is(err, unix.ERESTART) {
			break
		}
	}
	b.hangUp()
	return err
}

var errOtherTable = errors.New("another program made the table again")

// commit sends a transaction if the tables are those of the handles.
func (h *handles) commit(conn *nfnl.Conn, change batch) error {
	generation, err := conn.Generation()
	if err != nil {
		return err
	}
	are, err := tableHandles(conn, change.tables)
	if err != nil {
		return err
	}
	for t, handle := range are {
		if h.tables[t] != handle {
			return errOtherTable
		}
	}
	return conn.Commit(generation, change.messages)
}
