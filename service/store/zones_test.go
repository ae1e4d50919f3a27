package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a start is told of a bridge's zone: what was recorded; nothing after a
// reboot; and that something is lost where it cannot be read, or where the
// service that ran before wrote no records.
func TestZoneRecords(t *testing.T) {
	drop := "drop"
	record := ZoneRecord{Network: "a/b", Bridge: "virbr0", Iface: "virbr0", Mode: "nat", Zone: "drop", ByHand: &drop}
	for name, c := range map[string]struct {
		before func(t *testing.T, s *Store, dir string)
		want   *ZoneRecord
		broken int
	}{
		"recorded": {func(t *testing.T, s *Store, _ string) { done(t)(s.PutZone(record)) }, &record, 0},
		"reboot":   {func(*testing.T, *Store, string) {}, nil, 0},
		"an older version ran": {func(t *testing.T, s *Store, _ string) { must(t, s.SaveCounters(nil)) },
			&ZoneRecord{Network: "a/b", Lost: true}, 0},
		"forgotten": {func(t *testing.T, s *Store, _ string) {
			must(t, s.SaveCounters(nil))
			done(t)(s.PutZone(record))
			must(t, s.ForgetZone("a/b"))
		}, nil, 0},
		"cut": {func(t *testing.T, s *Store, dir string) {
			done(t)(s.PutZone(record))
			must(t, os.Truncate(filepath.Join(dir, "zones", fileName("a/b")+".json"), 9))
		}, &ZoneRecord{Network: "a/b", Lost: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			s := open(t, cfg)
			if name == "recorded" || name == "cut" || name == "forgotten" {
				_, _ = s.LoadZones() // as a start does, which makes the folder
			}
			c.before(t, s, cfg.RuntimeDir)
			records, broken := open(t, cfg).LoadZones()
			if diff := cmp.Diff(c.want, records.Of("a/b")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(broken) != c.broken {
				t.Errorf("broken are %v", broken)
			}
		})
	}
}
