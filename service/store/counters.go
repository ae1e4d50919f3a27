package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// SaveCounters records networks' totals for the next start of the service.
func (s *Store) SaveCounters(totals map[string]ruleset.Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writeJSON(countersFile, totals); err != nil {
		return fmt.Errorf("saving counters: %w", err)
	}
	return nil
}

// LoadCounters returns what was saved last, and nothing after a reboot. A file that
// cannot be used is renamed and added to Faults.
func (s *Store) LoadCounters() (map[string]ruleset.Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	totals := make(map[string]ruleset.Counters)
	err := s.readJSON(countersFile, &totals)
	if errors.Is(err, fs.ErrNotExist) {
		return totals, nil
	}
	if err != nil {
		if err = s.putAside(countersFile, err); err != nil {
			err = fmt.Errorf("loading counters: %w", err)
		}
		return make(map[string]ruleset.Counters), err
	}
	if totals == nil { // the file says null
		totals = make(map[string]ruleset.Counters)
	}
	return totals, nil
}
