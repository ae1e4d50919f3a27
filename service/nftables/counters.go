package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Counters returns the totals of all networks at once: the kernel takes as long
// for one as for all. Networks without counters are not in the result.
func (b *Backend) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	owners := b.counterOwners()
	var out map[string]ruleset.Counters
	err := b.reader.read(ctx, func(c *nfnl.Conn) error {
		out = make(map[string]ruleset.Counters)
		add := func(o owner, t ruleset.Total) {
			total := out[o.network]
			total.Add(o.what, t)
			out[o.network] = total
		}
		if err := owners.readNamed(c, add); err != nil {
			return err
		}
		return owners.readElements(c, add)
	})
	if errors.Is(err, unix.ENOENT) {
		return map[string]ruleset.Counters{}, nil // no table, no networks
	}
	if err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	return out, nil
}

// owner is what a counter counts.
type owner struct {
	network string
	what    ruleset.Counts
}

// owners are those of all counters.
type owners struct {
	named    map[string]owner
	elements map[elementKey]owner
	sets     []string // that have elements which count
}

func (b *Backend) counterOwners() owners {
	b.state.RLock()
	defer b.state.RUnlock()
	o := owners{make(map[string]owner, 4*len(b.installed)), make(map[elementKey]owner, 8*len(b.installed)), nil}
	for network, in := range b.installed {
		for _, what := range ruleset.AllCounts() {
			o.named[in.names.Counter(what)] = owner{network, what}
			o.named[in.names.Earlier(what)] = owner{network, what}
		}
		for _, e := range in.counting {
			o.elements[e.elementKey] = owner{network, e.what}
			if !slices.Contains(o.sets, e.set) {
				o.sets = append(o.sets, e.set)
			}
		}
	}
	return o
}

func (o owners) readNamed(c *nfnl.Conn, add func(owner, ruleset.Total)) error {
	return readCounters(c, func(name string, packets, bytes uint64) {
		if own, ok := o.named[name]; ok {
			add(own, ruleset.Total{Packets: packets, Bytes: bytes})
		}
	})
}

func (o owners) readElements(c *nfnl.Conn, add func(owner, ruleset.Total)) error {
	for _, set := range o.sets {
		attrs := []netlink.Attribute{nfnl.Named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_SET_ELEM_LIST_SET, set)}
		err := c.Dump(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET, attrs, func(body nfnl.Attributes) {
			for _, item := range nfnl.All(body.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				e, total := parseElement(item)
				if own, ok := o.elements[elementKey{set, e.key}]; ok {
					add(own, total)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ResetCounters sets a network's totals back to zero.
func (b *Backend) ResetCounters(ctx context.Context, network string) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	in, ok := b.installed[network]
	if !ok {
		return nil
	}
	if err := b.resetElements(in); err != nil {
		return fmt.Errorf("resetting counters of network %s: %w", network, err)
	}
	in.earlier = earlier{}
	b.state.Lock()
	b.installed[network] = in
	b.state.Unlock()
	messages, err := resetMessages(in.part.Counters)
	if err != nil || len(messages) == 0 {
		return err
	}
	if err := b.wire.exchange(messages); err != nil {
		return fmt.Errorf("resetting counters of network %s: %w", network, err)
	}
	return nil
}

// resetElements makes the elements that count anew, in one transaction, and takes what
// was counted earlier out.
func (b *Backend) resetElements(in installed) error {
	t := &transaction{delCounters: in.earlier.names(in.part.Network)}
	for _, e := range in.counting {
		t.delElements = append(t.delElements, e.element)
		t.addElements = append(t.addElements, e.element)
	}
	return b.commit(t)
}

// resetMessages returns requests that read and reset each counter: the kernel has
// no transaction for that. They go through the wire, as only an owner may do it.
func resetMessages(counters []string) ([]netlink.Message, error) {
	var out []netlink.Message
	for _, name := range counters {
		m, err := nfnl.Request(unix.NFT_MSG_GETOBJ_RESET, 0, unix.NFPROTO_INET, []netlink.Attribute{
			nfnl.Named(unix.NFTA_OBJ_TABLE, ruleset.TableName),
			nfnl.Named(unix.NFTA_OBJ_NAME, name),
			{Type: unix.NFTA_OBJ_TYPE, Data: binary.BigEndian.AppendUint32(nil, objectCounter)},
		})
		if err != nil {
			return nil, fmt.Errorf("encoding counter %s: %w", name, err)
		}
		out = append(out, m)
	}
	return out, nil
}
