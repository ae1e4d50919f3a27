package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// SaveCounters keeps networks' totals over a restart of the service.
func (s *Store) SaveCounters(totals map[string]ruleset.Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writeJSON(countersFile, totals); err != nil {
		return fmt.Errorf("saving counters: %w", err)
	}
	return nil
}

// LoadCounters gives what was saved last, and nothing after a reboot.
func (s *Store) LoadCounters() (map[string]ruleset.Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	totals := make(map[string]ruleset.Counters)
	err := s.readJSON(countersFile, &totals)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("loading counters: %w", err)
	}
	if totals == nil { // the file says null
		totals = make(map[string]ruleset.Counters)
	}
	return totals, nil
}
