package service

import (
	"fmt"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// ZoneRecords is where the service remembers over its own end which zone it
// knew each bridge in, so that it can tell what somebody chose by hand.
type ZoneRecords interface {
	// LoadZones reads them at a start; those that cannot be used are kept aside.
	LoadZones() (store.ZoneRecords, []store.FileError)
	PutZone(store.ZoneRecord) (undo func() error, err error)
	ForgetZone(network string) error
}

// noRecords remembers nothing.
type noRecords struct{}

func (noRecords) LoadZones() (store.ZoneRecords, []store.FileError) { return store.ZoneRecords{}, nil }
func (noRecords) ForgetZone(string) error                           { return nil }
func (noRecords) LoadLeaving() ([]store.Leaving, []store.FileError) { return nil, nil }
func (noRecords) ForgetLeaving(string) error                        { return nil }
func (noRecords) PutZone(store.ZoneRecord) (func() error, error)    { return noUndo, nil }
func (noRecords) PutLeaving(store.Leaving) (func() error, error)    { return noUndo, nil }

func noUndo() error { return nil }

// loadZoneRecords reads what an earlier run recorded. What is broken is
// reported, and no reason not to start.
func (s *Service) loadZoneRecords() store.ZoneRecords {
	records, broken := s.Records.LoadZones()
	s.noteBrokenRecords(fromZoneRecords, broken, "look at it, then remove it; a bridge that is in a zone of somebody's choice stays there until `virtfirewallctl reapply`")
	for _, b := range broken {
		s.Log.Warn("a record of a bridge's zone cannot be used and is kept aside: a bridge that is in a zone of somebody's choice stays there until the next reapply",
			"file", b.Path, "error", b.Err)
	}
	return records
}

// forgetZones removes the records of networks that an earlier run removed, and
// was killed before it forgot them.
func (s *Service) forgetZones(records store.ZoneRecords) {
	for _, name := range records.Networks() {
		if _, err := s.known(name); err == nil {
			continue
		}
		if err := s.Records.ForgetZone(name); err != nil {
			s.Log.Warn("forgetting the zone of a network that is gone", "network", name, "error", err)
		}
	}
}

// recall is the zone state of a network that an earlier run governed. Another
// bridge or zone in the network's file ends what was chosen by hand before.
func (m *managed) recall(last *store.ZoneRecord) zoneState {
	state := zoneState{unseen: true}
	if last == nil || (!last.Lost && (last.Bridge != m.net.Bridge || last.Asked != m.net.Zone)) {
		return state
	}
	state.byHand = last.ByHand
	if last.Lost || (last.Mode == string(m.net.Mode) && last.Iface == m.iface()) {
		state.last = last
	}
	return state
}

// found is the network's state as its bridge is found in a zone, "" for none,
// by a service that does not know yet who put it there.
func (m *managed) found(zone string, have zones.Installed) zoneState {
	now := *m
	now.zone = zoneState{byHand: m.zone.byHand, bound: zone, life: have.Life}
	want, err := now.zoneIn(have)
	now.zone.moved = have.Running && m.concernsZones() && (err != nil || want != zone) && movedByHand(m.zone.last, zone, have)
	return now.zone
}

// movedByHand reports whether another program, and not the service itself, put
// a bridge into the zone in which it is found. One that is in none is put back,
// since a reload of firewalld looks the same, unless it was taken out before.
func movedByHand(last *store.ZoneRecord, zone string, have zones.Installed) bool {
	switch {
	case last == nil || last.Unsure:
		return false
	case last.Lost:
		return zone != "" && !slices.Contains(have.Ours(), zone)
	case zone == "":
		return last.Moved && last.Zone == "" && last.Firewalld == have.Life
	}
	return last.Moved || zone != last.Zone
}

// zoneRecord is what the next start has to know; ok is false for nothing.
func (m *managed) zoneRecord() (record store.ZoneRecord, ok bool) {
	z := m.zone
	if !m.concernsZones() {
		return record, false
	}
	return store.ZoneRecord{
		Network: m.net.Name, Bridge: m.net.Bridge, Iface: m.iface(), Mode: string(m.net.Mode), Asked: m.net.Zone,
		Zone: z.bound, ByHand: z.byHand, Moved: z.moved, Unsure: z.unseen, Firewalld: z.life,
	}, true
}

// recordZones keeps the records in line with changed networks. Until a bridge
// was looked at, what the earlier run recorded stays.
func (s *Service) recordZones(ts []transition) {
	for _, t := range ts {
		if err := s.recordZone(t); err != nil {
			s.Log.Warn("a zone that somebody chooses by hand may not last over a restart of the service", "network", t.name(), "error", err)
		}
	}
}

func (s *Service) recordZone(t transition) error {
	if t.next == nil {
		return s.Records.ForgetZone(t.name())
	}
	if t.next.zone.last != nil {
		return nil
	}
	record, ok := t.next.zoneRecord()
	if !ok {
		return s.Records.ForgetZone(t.name())
	}
	_, err := s.Records.PutZone(record)
	return err
}

// recordChoice records a zone that is chosen by hand before the bridge is
// moved, so that it is not lost if the service is killed in between.
func (s *Service) recordChoice(m *managed) func() (undo func() error, err error) {
	return func() (func() error, error) {
		record, ok := m.zoneRecord()
		if !ok {
			return noUndo, nil
		}
		undo, err := s.Records.PutZone(record)
		if err != nil {
			return nil, fmt.Errorf("recording the zone of %s: %w", m.iface(), err)
		}
		return undo, nil
	}
}
