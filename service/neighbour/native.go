package neighbour

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// maxElements bounds what is read of a set. One with more, such as a list of blocked
// addresses, may match or not.
const maxElements = 4096

// tableID identifies a table of nf_tables.
type tableID struct {
	family byte
	name   string
}

// leftOut reports whether a table is the service's own, or firewalld's, whose zones say
// what becomes of guests' packets.
func (id tableID) leftOut() bool {
	return id == tableID{unix.NFPROTO_INET, ruleset.TableName} || id.name == "firewalld"
}

// nativeTables reads the tables that filter, but those that are known already as
// iptables lists them.
func nativeTables(ctx context.Context, known map[tableID]bool) (out []analysis.Table, err error) {
	conn, err := nfnl.Open(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	r := &nativeReader{conn: conn, tables: make(map[tableID]*nativeTable), names: make(map[uint32]string)}
	if err := r.read(known); err != nil {
		return nil, fmt.Errorf("reading other programs' nftables tables: %w", err)
	}
	for _, id := range r.order {
		for _, ipv6 := range []bool{false, true} {
			if t, ok := analysis.FromNFT(r.tables[id].value(), ipv6, r.linkName); ok {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// nativeReader reads tables over one connection.
type nativeReader struct {
	conn   *nfnl.Conn
	tables map[tableID]*nativeTable
	order  []tableID
	names  map[uint32]string // of interfaces
}

// nativeTable is a table of nf_tables.
type nativeTable struct {
	id     tableID
	chains []*analysis.NFTChain
	byName map[string]*analysis.NFTChain
	sets   map[string]analysis.NFTSet
}

func (t *nativeTable) value() analysis.NFT {
	n := analysis.NFT{Family: t.id.family, Name: t.id.name, Sets: t.sets}
	for _, c := range t.chains {
		n.Chains = append(n.Chains, *c)
	}
	return n
}

func (r *nativeReader) read(known map[tableID]bool) error {
	dormant := make(map[tableID]bool) // the kernel enters none of their chains
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET} {
		err := r.conn.Dump(unix.NFT_MSG_GETTABLE, family, nil, func(a nfnl.Attributes) {
			if a.Uint32(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0 {
				dormant[tableID{family, a.Text(unix.NFTA_TABLE_NAME)}] = true
			}
		})
		if err != nil {
			return err
		}
		err = r.conn.Dump(unix.NFT_MSG_GETCHAIN, family, nil, func(a nfnl.Attributes) {
			id := tableID{family, a.Text(unix.NFTA_CHAIN_TABLE)}
			if !known[id] && !id.leftOut() && !dormant[id] {
				r.chain(id, a)
			}
		})
		if err != nil {
			return err
		}
	}
	r.order = slices.DeleteFunc(r.order, func(id tableID) bool { return !r.tables[id].filters() })
	for _, id := range r.order {
		if err := r.fill(r.tables[id]); err != nil {
			return err
		}
	}
	return nil
}

func (t *nativeTable) filters() bool {
	return slices.ContainsFunc(t.chains, func(c *analysis.NFTChain) bool { return c.Base && c.Type != "nat" })
}

func (r *nativeReader) chain(id tableID, a nfnl.Attributes) {
	t := r.tables[id]
	if t == nil {
		t = &nativeTable{id: id, byName: make(map[string]*analysis.NFTChain), sets: make(map[string]analysis.NFTSet)}
		r.tables[id] = t
		r.order = append(r.order, id)
	}
	c := &analysis.NFTChain{Name: a.Text(unix.NFTA_CHAIN_NAME), Type: a.Text(unix.NFTA_CHAIN_TYPE)}
	if hook := a.Get(unix.NFTA_CHAIN_HOOK); hook != nil {
		c.Base, c.Hook = true, analysis.Hook(hook.Uint32(unix.NFTA_HOOK_HOOKNUM))
		c.Priority = int(int32(hook.Uint32(unix.NFTA_HOOK_PRIORITY)))
		const drop = 0 // NF_DROP
		c.Drops = a.Has(unix.NFTA_CHAIN_POLICY) && a.Uint32(unix.NFTA_CHAIN_POLICY) == drop
	}
	t.chains = append(t.chains, c)
	t.byName[c.Name] = c
}

// fill reads the rules of a table that filters, and its sets.
func (r *nativeReader) fill(t *nativeTable) error {
	err := r.conn.Dump(unix.NFT_MSG_GETRULE, t.id.family, []netlink.Attribute{nfnl.Named(unix.NFTA_RULE_TABLE, t.id.name)}, func(a nfnl.Attributes) {
		c := t.byName[a.Text(unix.NFTA_RULE_CHAIN)]
		if c == nil || a.Text(unix.NFTA_RULE_TABLE) != t.id.name {
			return
		}
		c.Rules = append(c.Rules, analysis.NFTRule{Handle: a.Uint64(unix.NFTA_RULE_HANDLE), Expressions: append([]byte(nil), a.Get(unix.NFTA_RULE_EXPRESSIONS)...)})
	})
	if err != nil {
		return err
	}
	err = r.conn.Dump(unix.NFT_MSG_GETSET, t.id.family, []netlink.Attribute{nfnl.Named(unix.NFTA_SET_TABLE, t.id.name)}, func(a nfnl.Attributes) {
		if a.Text(unix.NFTA_SET_TABLE) == t.id.name {
			t.sets[a.Text(unix.NFTA_SET_NAME)] = analysis.NFTSet{Flags: a.Uint32(unix.NFTA_SET_FLAGS)}
		}
	})
	if err != nil {
		return err
	}
	for name := range t.sets {
		if err := r.elements(t, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// elements reads those of a set; one with too many is taken out, and so unknown.
func (r *nativeReader) elements(t *nativeTable, name string) error {
	set := t.sets[name]
	tooMany := false
	which := []netlink.Attribute{nfnl.Named(unix.NFTA_SET_ELEM_LIST_TABLE, t.id.name), nfnl.Named(unix.NFTA_SET_ELEM_LIST_SET, name)}
	err := r.conn.Dump(unix.NFT_MSG_GETSETELEM, t.id.family, which, func(a nfnl.Attributes) {
		for _, item := range nfnl.All(a.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if len(set.Elements) == maxElements {
				tooMany = true
				return
			}
			set.Elements = append(set.Elements, elementOf(nfnl.Attributes(item)))
		}
	})
	t.sets[name] = set
	if tooMany {
		delete(t.sets, name)
	}
	return err
}

func elementOf(a nfnl.Attributes) analysis.NFTElement {
	value := func(typ uint16) []byte { return append([]byte(nil), a.Get(typ).Get(unix.NFTA_DATA_VALUE)...) }
	const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
	v := a.Get(unix.NFTA_SET_ELEM_DATA).Get(unix.NFTA_DATA_VERDICT)
	return analysis.NFTElement{
		Key: value(unix.NFTA_SET_ELEM_KEY), KeyEnd: value(keyEnd), End: a.Uint32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0,
		Verdict: int32(v.Uint32(unix.NFTA_VERDICT_CODE)), Chain: v.Text(unix.NFTA_VERDICT_CHAIN),
	}
}

// linkName returns the name of an interface; "" for one that is gone.
func (r *nativeReader) linkName(index uint32) string {
	name, ok := r.names[index]
	if !ok {
		if link, err := net.InterfaceByIndex(int(index)); err == nil {
			name = link.Name
		}
		r.names[index] = name
	}
	return name
}
