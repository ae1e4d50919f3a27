package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

const zonesFolder folder = "zones"

const (
	recordSuffix = ".json"
	brokenSuffix = ".broken" // a record that is kept aside
	// maxRecordBytes is more than any record has.
	maxRecordBytes = 1 << 14
)

// ZoneRecord is where the service last knew a network's bridge in firewalld, so
// that the next start can tell what somebody chose by hand. It ends with the
// host's uptime, as firewalld's own bindings do.
type ZoneRecord struct {
	Network   string
	Bridge    string
	Iface     string  // the name that the bridge had
	Mode      string  // forward mode and zone of the network at that time:
	Asked     string  // other ones end what was chosen by hand
	Zone      string  // "" for none
	ByHand    *string `json:",omitempty"` // the zone of BindInterface
	Moved     bool    `json:",omitempty"` // another program put it there
	Unsure    bool    `json:",omitempty"` // a request of the service's own may have moved it
	Firewalld string  `json:",omitempty"` // which run of firewalld that was

	// Lost reports that there was a record which cannot be read, or that the service
	// which ran before wrote none.
	Lost bool `json:"-"`
}

// ZoneRecords are the records that a start finds.
type ZoneRecords struct {
	found  map[string]ZoneRecord
	broken map[string]bool // by file name
	older  bool            // a version of the service that keeps no records has run
}

// Of returns the record of a network, nil for none.
func (r ZoneRecords) Of(network string) *ZoneRecord {
	if found, ok := r.found[network]; ok {
		return &found
	}
	if r.older || r.broken[fileName(network)+recordSuffix] {
		return &ZoneRecord{Network: network, Lost: true}
	}
	return nil
}

// Networks returns the networks that have records.
func (r ZoneRecords) Networks() []string { return slices.Collect(maps.Keys(r.found)) }

// LoadZones returns all records. One that cannot be used is reported and renamed.
func (s *Store) LoadZones() (ZoneRecords, []FileError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := ZoneRecords{found: map[string]ZoneRecord{}, broken: map[string]bool{}}
	_, err := os.Stat(s.path(zonesFolder, ""))
	_, ran := os.Stat(s.path(stateFolder, countersFile)) // it is written at every stop
	r.older = errors.Is(err, fs.ErrNotExist) && ran == nil
	files, err := s.openFolder(zonesFolder)
	if err != nil {
		return r, []FileError{{Path: s.path(zonesFolder, ""), Err: err}}
	}
	var broken []FileError
	for _, file := range files {
		if !isRecord(file) {
			continue
		}
		record, err := s.loadZone(file)
		if err != nil {
			r.broken[file] = true
			broken = append(broken, s.setAside(zonesFolder, file, err))
			continue
		}
		r.found[record.Network] = record
	}
	return r, broken
}

// openFolder makes a folder of records where it is missing, checks it and
// returns what is in it.
func (s *Store) openFolder(f folder) ([]string, error) {
	if err := s.cfg.disk.MkdirAll(s.path(f, "")); err != nil {
		return nil, err
	}
	if err := trusted.CheckFolder(s.path(f, "")); err != nil {
		return nil, err
	}
	s.sweep(s.path(f, ""))
	return listFolder(s.path(f, ""))
}

func (s *Store) loadZone(file string) (ZoneRecord, error) {
	var record ZoneRecord
	data, _, err := trusted.Read(s.path(zonesFolder, file), maxRecordBytes)
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err == nil && (record.Network == "" || fileName(record.Network)+recordSuffix != file) {
		err = fmt.Errorf("it does not hold the network %q that its file name says", strings.TrimSuffix(file, recordSuffix))
	}
	return record, err
}

func isRecord(file string) bool { return strings.HasSuffix(file, recordSuffix) }

// setAside keeps a record that cannot be used under another name, for people.
func (s *Store) setAside(f folder, file string, why error) FileError {
	path := s.path(f, file)
	if err := s.cfg.disk.Rename(path, path+brokenSuffix); err != nil {
		why = fmt.Errorf("%w; renaming it to %s: %w", why, file+brokenSuffix, err)
	}
	return FileError{Path: path, Err: why}
}

// PutZone writes a network's record. undo puts back what was there.
func (s *Store) PutZone(record ZoneRecord) (undo func() error, err error) {
	data, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("recording the zone of network %q: %w", record.Network, err)
	}
	return s.putRecord(zonesFolder, fileName(record.Network)+recordSuffix, data)
}

// ForgetZone removes a network's record, if there is one.
func (s *Store) ForgetZone(network string) error {
	_, err := s.putRecord(zonesFolder, fileName(network)+recordSuffix, nil)
	return err
}

// putRecord writes a record's file, or deletes it if data is nil. undo restores it.
func (s *Store) putRecord(f folder, file string, data []byte) (undo func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, _, err := trusted.Read(s.path(f, file), maxJournalBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		was = nil // nobody misses what could not be read
	}
	if bytes.Equal(was, data) {
		return func() error { return nil }, nil
	}
	if err := s.writeRecord(f, file, data); err != nil {
		return nil, err
	}
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.writeRecord(f, file, was)
	}, nil
}

func (s *Store) writeRecord(f folder, file string, data []byte) error {
	path := s.path(f, file)
	if data == nil {
		return ignoreMissing(s.cfg.disk.Remove(path))
	}
	if err := write(s.cfg.disk, path, data, newFileMode, false); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
