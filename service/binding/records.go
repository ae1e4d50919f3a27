package binding

import (
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/store"
)

// Records is where it is remembered over the service's own end which zone it knew
// each bridge in, so that a start can tell what somebody chose by hand.
type Records interface {
	// LoadZones reads them at a start; those that cannot be used are kept aside.
	LoadZones() (store.ZoneRecords, []store.FileError)
	PutZone(store.ZoneRecord) (undo func() error, err error)
	ForgetZone(network string) error
}

// record returns what the next start has to know; ok is false for nothing.
func (b *Bridge) record() (r store.ZoneRecord, ok bool) {
	if !b.Governed() {
		return r, false
	}
	s := b.State
	return store.ZoneRecord{
		Network: b.Network, Bridge: b.Name, Iface: b.Iface, Mode: string(b.Mode), Asked: b.Zone,
		Zone: s.Bound, ByHand: s.ByHand, Moved: s.Moved, Unsure: s.Unseen, Firewalld: s.Life,
	}, true
}

// Record keeps the record of one network in line with a change of it. Until its
// bridge was looked at, what the earlier run recorded stays.
func (b *Binder) Record(c Change) {
	name, err := "", error(nil)
	switch {
	case c.Next == nil:
		name = c.Old.Network
		err = b.cfg.Records.ForgetZone(name)
	case c.Next.State.Last == nil:
		name = c.Next.Network
		if r, ok := c.Next.record(); ok {
			_, err = b.cfg.Records.PutZone(r)
		} else {
			err = b.cfg.Records.ForgetZone(name)
		}
	}
	if err != nil {
		b.cfg.Log.Warn("a zone that somebody chooses by hand may not last over a restart of the service", "network", name, "error", err)
	}
}

// RecordChoice records a zone that is chosen by hand before the bridge is moved,
// so that it is not lost if the service is killed in between.
func (b *Binder) RecordChoice(bridge Bridge) (undo func() error, err error) {
	r, ok := bridge.record()
	if !ok {
		return func() error { return nil }, nil
	}
	if undo, err = b.cfg.Records.PutZone(r); err != nil {
		return nil, fmt.Errorf("recording the zone of %s: %w", bridge.Iface, err)
	}
	return undo, nil
}
