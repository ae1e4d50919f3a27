package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Counters returns the totals of all networks at once: the kernel takes as long
// for one as for all. Networks without counters are not in the result.
func (b *Backend) Counters(ctx context.Context) (map[string]ruleset.Counters, error) {
	owners := b.counterOwners()
	out := make(map[string]ruleset.Counters, len(owners)/4)
	err := b.reader.read(ctx, func(c *nfnl.Conn) error {
		clear(out)
		return readCounters(c, func(name string, packets, bytes uint64) {
			if o, ok := owners[name]; ok {
				c := out[o.network]
				o.put(&c, packets, bytes)
				out[o.network] = c
			}
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return out, nil // no table, no networks
	}
	if err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	return out, nil
}

// counterOwner is what a named counter counts.
type counterOwner struct {
	network string
	put     func(c *ruleset.Counters, packets, bytes uint64)
}

func (b *Backend) counterOwners() map[string]counterOwner {
	b.state.RLock()
	defer b.state.RUnlock()
	owners := make(map[string]counterOwner, 4*len(b.installed))
	for network, in := range b.installed {
		owners[in.names.From] = counterOwner{network, func(c *ruleset.Counters, packets, bytes uint64) {
			c.FromGuestPackets, c.FromGuestBytes = packets, bytes
		}}
		owners[in.names.To] = counterOwner{network, func(c *ruleset.Counters, packets, bytes uint64) {
			c.ToGuestPackets, c.ToGuestBytes = packets, bytes
		}}
		owners[in.names.RejectedFrom] = counterOwner{network, func(c *ruleset.Counters, packets, _ uint64) {
			c.RejectedFromGuestPackets = packets
		}}
		owners[in.names.RejectedTo] = counterOwner{network, func(c *ruleset.Counters, packets, _ uint64) {
			c.RejectedToGuestPackets = packets
		}}
	}
	return owners
}

// ResetCounters sets a network's totals back to zero.
func (b *Backend) ResetCounters(ctx context.Context, network string) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	in, ok := b.installed[network]
	if !ok || len(in.part.Counters) == 0 {
		return nil
	}
	messages, err := resetMessages(in.part.Counters)
	if err != nil {
		return err
	}
	if err := b.wire.exchange(messages); err != nil {
		return fmt.Errorf("resetting counters of network %s: %w", network, err)
	}
	return nil
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
