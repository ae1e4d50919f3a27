package nftables

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// The counters of a network's totals go with the elements and rules that they are part
// of. What those had counted goes on in named counters that nothing refers to.

// recount gives the counter of what was counted earlier another value.
type recount struct {
	counter
	had bool // it exists
}

// earlier are the counters of what was counted earlier that a network has, by what
// they count.
type earlier map[ruleset.Counts]bool

func (e earlier) names(network string) (out []string) {
	names := ruleset.NamesOf(network)
	for what := range e {
		out = append(out, names.Earlier(what))
	}
	return out
}

// recounts returns what makes a network's earlier counters have these values, and which
// of them there are then.
func (e earlier) recounts(network string, values map[ruleset.Counts]ruleset.Total, have map[ruleset.Counts]ruleset.Total) (out []recount, after earlier) {
	names := ruleset.NamesOf(network)
	after = earlier{}
	for _, what := range ruleset.AllCounts() {
		value := values[what]
		if value != (ruleset.Total{}) {
			after[what] = true
		}
		if value != have[what] || e[what] && !after[what] {
			out = append(out, recount{counter{names.Earlier(what), value.Packets, value.Bytes}, e[what]})
		}
	}
	return out, after
}

func sum(a, b ruleset.Total) ruleset.Total {
	return ruleset.Total{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// without returns what is left of a total, never less than nothing.
func without(a, b ruleset.Total) ruleset.Total {
	return ruleset.Total{Packets: a.Packets - min(a.Packets, b.Packets), Bytes: a.Bytes - min(a.Bytes, b.Bytes)}
}

func highest(a, b ruleset.Total) ruleset.Total {
	return ruleset.Total{Packets: max(a.Packets, b.Packets), Bytes: max(a.Bytes, b.Bytes)}
}

// startValues returns what a network's totals must not fall below.
func (b *Backend) startValues(network string) ruleset.Counters {
	if b.config.StartValues == nil {
		return ruleset.Counters{}
	}
	return b.config.StartValues(network)
}

// starting returns the earlier counters of a network that is new in the table.
func (b *Backend) starting(network string) ([]recount, earlier) {
	values, start := map[ruleset.Counts]ruleset.Total{}, b.startValues(network)
	for _, what := range ruleset.AllCounts() {
		values[what] = start.Of(what)
	}
	return earlier{}.recounts(network, values, nil)
}

// carry reads what the elements and counters have counted that a change removes from
// networks in force, and has it counted as earlier.
func (b *Backend) carry(ctx context.Context, t *transaction, set []installed) error {
	if len(t.delElements)+len(t.delCounters) == 0 {
		return nil
	}
	goneElements, goneCounters := make(map[elementKey]bool, len(t.delElements)), make(map[string]bool, len(t.delCounters))
	for _, e := range t.delElements {
		goneElements[e.elementKey] = e.counts
	}
	for _, name := range t.delCounters {
		goneCounters[name] = true
	}
	return b.reader.read(ctx, func(c *nfnl.Conn) error {
		t.recounts = nil
		for i, in := range set {
			old, known := b.installed[in.part.Network]
			if !known {
				continue
			}
			lost, err := old.lost(c, goneElements, goneCounters)
			if err != nil {
				return fmt.Errorf("reading counters of network %s: %w", in.part.Network, err)
			}
			if len(lost) > 0 {
				have, err := old.readEarlier(c)
				if err != nil {
					return err
				}
				values := map[ruleset.Counts]ruleset.Total{}
				for _, what := range ruleset.AllCounts() {
					values[what] = sum(have[what], lost[what])
				}
				var list []recount
				list, set[i].earlier = old.earlier.recounts(in.part.Network, values, have)
				t.recounts = append(t.recounts, list...)
			}
		}
		return nil
	})
}

// lost returns what is counted by those of the network's elements and counters that go.
func (in installed) lost(c *nfnl.Conn, elements map[elementKey]bool, counters map[string]bool) (map[ruleset.Counts]ruleset.Total, error) {
	out := map[ruleset.Counts]ruleset.Total{}
	for _, e := range in.counting {
		if !elements[e.elementKey] {
			continue
		}
		err := getElement(c, e.elementKey, func(_ element, total ruleset.Total) { out[e.what] = sum(out[e.what], total) })
		if err != nil {
			return nil, err
		}
	}
	for _, what := range ruleset.AllCounts() {
		name := in.names.Counter(what)
		if !counters[name] {
			continue
		}
		if err := getCounter(c, name, func(t ruleset.Total) { out[what] = sum(out[what], t) }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (in installed) readEarlier(c *nfnl.Conn) (map[ruleset.Counts]ruleset.Total, error) {
	out := map[ruleset.Counts]ruleset.Total{}
	for what := range in.earlier {
		if err := getCounter(c, in.names.Earlier(what), func(t ruleset.Total) { out[what] = t }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// getCounter reads a named counter, if it exists.
func getCounter(c *nfnl.Conn, name string, do func(ruleset.Total)) error {
	attrs := []netlink.Attribute{
		nfnl.Named(unix.NFTA_OBJ_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_OBJ_NAME, name),
		{Type: unix.NFTA_OBJ_TYPE, Data: binary.BigEndian.AppendUint32(nil, objectCounter)},
	}
	_, err := get(c, unix.NFT_MSG_GETOBJ, attrs, func(body nfnl.Attributes) {
		n := counterOf(body)
		do(ruleset.Total{Packets: n.packets, Bytes: n.bytes})
	})
	return err
}

// getElement reads an element, if it exists.
func getElement(c *nfnl.Conn, key elementKey, do func(element, ruleset.Total)) error {
	attrs, err := elementRequest(key)
	if err != nil {
		return err
	}
	_, err = get(c, unix.NFT_MSG_GETSETELEM, attrs, func(body nfnl.Attributes) {
		e, total := parseElement(body.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).Get(unix.NFTA_LIST_ELEM))
		do(element{key, e.content}, total)
	})
	return err
}

func elementRequest(key elementKey) ([]netlink.Attribute, error) {
	item, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_DATA_VALUE, Data: []byte(key.key)}})
	if err != nil {
		return nil, err
	}
	if item, err = nest(unix.NFTA_SET_ELEM_KEY, item); err == nil {
		item, err = nest(unix.NFTA_LIST_ELEM, item)
	}
	return []netlink.Attribute{
		nfnl.Named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_SET_ELEM_LIST_SET, key.set),
		{Type: unix.NLA_F_NESTED | unix.NFTA_SET_ELEM_LIST_ELEMENTS, Data: item},
	}, err
}
