package store

import (
	"encoding/json"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

const leavingFolder folder = "leaving"

// Leaving is a bridge that has yet to leave its firewalld zone, and the network
// that it had.
type Leaving struct {
	Bridge string
	Doc    []byte // of the network
	Rules  bool   // whether its rules are to stay until then

	Network network.Network `json:"-"` // what Doc says
}

// LoadLeaving returns all of them. One that cannot be used is reported and renamed.
func (s *Store) LoadLeaving() ([]Leaving, []FileError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := s.openFolder(leavingFolder)
	if err != nil {
		return nil, []FileError{{Path: s.path(leavingFolder, ""), Err: err}}
	}
	var found []Leaving
	var broken []FileError
	for _, file := range files {
		if !isRecord(file) {
			continue
		}
		record, err := s.loadLeaving(file)
		if err != nil {
			broken = append(broken, s.setAside(leavingFolder, file, err))
			continue
		}
		found = append(found, record)
	}
	return found, broken
}

func (s *Store) loadLeaving(file string) (record Leaving, err error) {
	data, _, err := trusted.Read(s.path(leavingFolder, file), 2*network.MaxXMLBytes)
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err == nil {
		record.Network, err = s.cfg.Parse(record.Doc)
	}
	if err == nil && (record.Network.Bridge != record.Bridge || leavingFile(record.Bridge) != file) {
		err = fmt.Errorf("it is of bridge %q, and not of the one that its file name says", record.Bridge)
	}
	return record, err
}

func leavingFile(bridge string) string { return network.Escape(bridge) + recordSuffix }

// PutLeaving writes the record of a bridge. undo puts back what was there.
func (s *Store) PutLeaving(record Leaving) (undo func() error, err error) {
	data, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	return s.putRecord(leavingFolder, leavingFile(record.Bridge), data)
}

// ForgetLeaving removes the record of a bridge, if there is one.
func (s *Store) ForgetLeaving(bridge string) error {
	_, err := s.putRecord(leavingFolder, leavingFile(bridge), nil)
	return err
}
