package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wantFault checks that a file of the store's own was moved out of the way.
func wantFault(t *testing.T, s *Store, name string) {
	t.Helper()
	path := filepath.Join(s.cfg.RuntimeDir, name)
	faults := s.Faults()
	if len(faults) != 1 || faults[0].Path != path || !strings.Contains(faults[0].Error(), asideSuffix) {
		t.Errorf("faults are %v, want one of %s", faults, path)
	}
	if _, err := os.Lstat(path + asideSuffix); err != nil {
		t.Error("it is not kept:", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("it is still in the way")
	}
}

// A journal that cannot be used is kept aside, and no file outside is touched.
func TestJournalThatCannotBeUsed(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `[{"Folder":"persis`, "text": "nothing", "number": "7",
		"parent":  `[{"Folder":"persistent","File":"..","Delete":true}]`,
		"dot":     `[{"Folder":"networks","File":".","Delete":true}]`,
		"path":    `[{"Folder":"networks","File":"../victim","Delete":true}]`,
		"folder":  `[{"Folder":"..","File":"victim","Delete":true}]`,
		"own":     `[{"Folder":".","File":"victim","Delete":true}]`,
		"hidden":  `[{"Folder":"persistent","File":".victim","Delete":true}]`,
		"no file": `[{"Folder":"persistent","Delete":true}]`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			put("n", "1", true)(t, open(t, cfg))
			victim := filepath.Join(filepath.Dir(cfg.RuntimeDir), "victim")
			writeFile(t, victim, nil)
			writeFile(t, filepath.Join(cfg.RuntimeDir, journalFile), []byte(text))
			s := open(t, cfg)
			wantFault(t, s, journalFile)
			wantCurrent(t, s, "n: 1 (persistent)")
			if _, err := os.Stat(victim); err != nil {
				t.Error(err)
			}
		})
	}
	for way, spoil := range ways() {
		t.Run(way, func(t *testing.T) {
			cfg := testConfig(t)
			open(t, cfg)
			path := filepath.Join(cfg.RuntimeDir, journalFile)
			writeFile(t, path, []byte("[]"))
			spoil(t, path)
			if s := open(t, cfg); way != "too long" { // which is no limit for a journal, and is no JSON
				wantFault(t, s, journalFile)
			}
		})
	}
}
