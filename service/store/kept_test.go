package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// found is what a start finds: what is in force, and which networks are so by
// their last good definition.
func found(t *testing.T, s *Store) (force, faults []string, broken []FileError) {
	t.Helper()
	state, broken, err := s.Load()
	must(t, err)
	for _, e := range state.Current() {
		if e.Fault != nil {
			faults = append(faults, e.Network.Name)
			if e.Fault.Network != e.Network.Name || e.Fault.Err == nil {
				t.Errorf("the fault of %s is %+v", e.Network.Name, e.Fault)
			}
		}
	}
	return view(state.Current()), faults, broken
}

// ways in which a file cannot be used.
func ways() map[string]func(t *testing.T, path string) {
	return map[string]func(t *testing.T, path string){
		"mode":     func(t *testing.T, p string) { must(t, os.Chmod(p, 0o664)) },
		"owner":    func(t *testing.T, p string) { must(t, os.Chown(p, 1000, 0)) },
		"syntax":   func(t *testing.T, p string) { must(t, os.WriteFile(p, []byte("x"), 0o644)) },
		"empty":    func(t *testing.T, p string) { must(t, os.Truncate(p, 0)) },
		"cut":      func(t *testing.T, p string) { must(t, os.Truncate(p, 1)) },
		"symlink":  func(t *testing.T, p string) { must(t, os.Rename(p, p+".away")); must(t, os.Symlink(p+".away", p)) },
		"pipe":     func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, syscall.Mkfifo(p, 0o644)) },
		"folder":   func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Mkdir(p, 0o755)) },
		"too long": func(t *testing.T, p string) { must(t, os.Truncate(p, network.MaxXMLBytes+1)) },
	}
}

// A file that cannot be used leaves its network in force as it was, over any
// number of starts, and is as before when it is mended.
func TestLastGoodDefinitionStands(t *testing.T) {
	kinds := map[string]struct {
		setup func(t testing.TB, s *Store)
		path  func(cfg Config) string
		force string
	}{
		"persistent": {put("n", "2", true), func(c Config) string { return filepath.Join(c.PersistentDir, "n.xml") }, "n: 2 (persistent)"},
		"runtime":    {put("n", "2", false), func(c Config) string { return filepath.Join(c.RuntimeDir, "networks", "n.xml") }, "n: 2"},
		"change": {sequence(put("n", "1", true), put("n", "2", false)),
			func(c Config) string { return filepath.Join(c.RuntimeDir, "networks", "n.change.xml") }, "n: 2 (persistent)"},
	}
	for kind, k := range kinds {
		for way, spoil := range ways() {
			t.Run(kind+"/"+way, func(t *testing.T) {
				cfg := testConfig(t)
				s := open(t, cfg)
				k.setup(t, s)
				put("other", "1", true)(t, s)
				path := k.path(cfg)
				good, err := os.ReadFile(path)
				must(t, err)
				spoil(t, path)
				for range 3 {
					force, faults, broken := found(t, open(t, cfg))
					if diff := cmp.Diff([]string{k.force, "other: 1 (persistent)"}, force); diff != "" {
						t.Fatal(diff)
					}
					if !cmp.Equal(faults, []string{"n"}) || len(broken) != 1 || broken[0].Path != path || broken[0].Network != "n" {
						t.Fatal("faults", faults, "broken", broken)
					}
				}
				must(t, os.RemoveAll(path))
				must(t, os.WriteFile(path, good, 0o644))
				wantCurrent(t, open(t, cfg), k.force, "other: 1 (persistent)")
			})
		}
	}
}

// A later version that reads a document no more has the value that was read.
func TestStricterParser(t *testing.T) {
	for _, persistent := range []bool{true, false} {
		cfg := testConfig(t)
		put("n", "1", persistent)(t, open(t, cfg))
		cfg.Parse = func([]byte) (network.Network, error) { return network.Network{}, errors.New("no longer") }
		s := open(t, cfg)
		state, broken, err := s.Load()
		must(t, err)
		all := state.Current()
		if len(all) != 1 || all[0].Network.Name != "n" || all[0].Fault == nil || string(all[0].Doc) != "n\n1" || len(broken) != 1 {
			t.Errorf("persistent %v: %+v, %v", persistent, all, broken)
		}
	}
}

// Both files of a network are broken: the runtime change was in force, and after
// a reload it is the persistent definition.
func TestBothFilesBroken(t *testing.T) {
	cfg := testConfig(t)
	sequence(put("n", "1", true), put("n", "2", false))(t, open(t, cfg))
	for _, path := range []string{filepath.Join(cfg.PersistentDir, "n.xml"), filepath.Join(cfg.RuntimeDir, "networks", "n.change.xml")} {
		must(t, os.Truncate(path, 0))
	}
	s := open(t, cfg)
	state, _, err := s.Load()
	must(t, err)
	for after, entries := range map[string][]Entry{"n: 2 (persistent)": state.Current(), "n: 1 (persistent)": state.AfterReload()} {
		if got := view(entries); len(got) != 1 || got[0] != after || entries[0].Fault == nil {
			t.Errorf("got %q, want %s with a fault", got, after)
		}
	}
	_, err = s.ForgetRuntimeChanges(state)
	must(t, err)
	if force, faults, _ := found(t, open(t, cfg)); !cmp.Equal(force, []string{"n: 1 (persistent)"}) || len(faults) != 1 {
		t.Error("after the reload:", force, faults)
	}
}

// A broken persistent file below a runtime change is a fault of the network.
func TestBrokenFileBelowAChange(t *testing.T) {
	cfg := testConfig(t)
	sequence(put("n", "1", true), put("n", "2", false))(t, open(t, cfg))
	must(t, os.Chmod(filepath.Join(cfg.PersistentDir, "n.xml"), 0o666))
	if force, faults, _ := found(t, open(t, cfg)); !cmp.Equal(force, []string{"n: 2 (persistent)"}) || len(faults) != 1 {
		t.Error("got", force, faults)
	}
}

// A folder that cannot be used takes no network away, at a start or a reload.
func TestFolderThatCannotBeUsed(t *testing.T) {
	for way, spoil := range map[string]func(t *testing.T, dir string){
		"gone":      func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
		"parent":    func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Dir(dir))) },
		"mode":      func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) },
		"owner":     func(t *testing.T, dir string) { must(t, os.Chown(dir, 1000, 0)) },
		"no folder": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)); writeFile(t, dir, nil) },
	} {
		t.Run(way, func(t *testing.T) {
			cfg := testConfig(t)
			s := open(t, cfg)
			sequence(put("a", "1", true), put("b", "1", true), put("b", "2", false), put("c", "1", false))(t, s)
			spoil(t, cfg.PersistentDir)
			for _, s := range []*Store{s, open(t, cfg)} {
				force, faults, broken := found(t, s)
				if diff := cmp.Diff([]string{"a: 1 (persistent)", "b: 2 (persistent)", "c: 1"}, force); diff != "" {
					t.Error(diff)
				}
				if !cmp.Equal(faults, []string{"a", "b"}) || len(broken) != 1 || broken[0].Path != cfg.PersistentDir {
					t.Error("faults", faults, "broken", broken)
				}
				if _, err := s.Put("d", doc("d", "1"), true); err == nil {
					t.Error("a file is written beside those that cannot be seen")
				}
				done(t)(s.Put("d", doc("d", "1"), false))
				done(t)(s.Remove("d", false))
			}
		})
	}
}

// A network that is removed meanwhile does not come back with the folder's fault.
func TestRemovalWhileTheFolderIsGone(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	sequence(put("a", "1", true), put("b", "1", true))(t, s)
	must(t, os.RemoveAll(cfg.PersistentDir))
	done(t)(s.Remove("a", true))
	if force, _, _ := found(t, open(t, cfg)); !cmp.Equal(force, []string{"b: 1 (persistent)"}) {
		t.Error("got", force)
	}
	must(t, os.MkdirAll(cfg.PersistentDir, 0o755)) // an empty folder is a decision
	wantCurrent(t, open(t, cfg))
}

// The folder of runtime networks is the service's own: it is made again.
func TestRuntimeFolderThatIsGone(t *testing.T) {
	for _, running := range []bool{true, false} {
		cfg := testConfig(t)
		s := open(t, cfg)
		sequence(put("n", "1", true), put("n", "2", false), put("m", "1", false))(t, s)
		must(t, os.RemoveAll(filepath.Join(cfg.RuntimeDir, "networks")))
		if !running {
			s = open(t, cfg)
		}
		put("k", "1", false)(t, s)
		if len(s.Faults()) != 1 {
			t.Error("faults are", s.Faults())
		}
		wantCurrent(t, open(t, cfg), "k: 1", "m: 1", "n: 2 (persistent)")
	}
}

// Files that somebody moves, copies or rewrites by hand.
func TestFilesChangedByHand(t *testing.T) {
	at := func(cfg Config, name string) string { return filepath.Join(cfg.PersistentDir, name) }
	for name, c := range map[string]struct {
		by     func(t *testing.T, cfg Config)
		force  []string
		faults []string
		broken int
	}{
		"removed": {func(t *testing.T, cfg Config) { must(t, os.Remove(at(cfg, "a.xml"))) }, []string{"b: 1 (persistent)"}, nil, 0},
		"renamed": {func(t *testing.T, cfg Config) { must(t, os.Rename(at(cfg, "a.xml"), at(cfg, "z.xml"))) },
			[]string{"a: 1 (persistent)", "b: 1 (persistent)"}, nil, 0},
		"changed": {func(t *testing.T, cfg Config) { writeFile(t, at(cfg, "a.xml"), doc("a", "2")) },
			[]string{"a: 2 (persistent)", "b: 1 (persistent)"}, nil, 0},
		"another network in it": {func(t *testing.T, cfg Config) { writeFile(t, at(cfg, "a.xml"), doc("c", "1")) },
			[]string{"b: 1 (persistent)", "c: 1 (persistent)"}, nil, 0},
		"swapped": {func(t *testing.T, cfg Config) {
			writeFile(t, at(cfg, "a.xml"), doc("b", "2"))
			writeFile(t, at(cfg, "b.xml"), doc("a", "2"))
		}, []string{"a: 2 (persistent)", "b: 2 (persistent)"}, nil, 0},
		"copied over another": {func(t *testing.T, cfg Config) { writeFile(t, at(cfg, "a.xml"), doc("b", "1")) },
			[]string{"a: 1 (persistent)", "b: 1 (persistent)"}, []string{"a"}, 1},
		"a second file": {func(t *testing.T, cfg Config) { writeFile(t, at(cfg, "0.xml"), doc("a", "2")) },
			[]string{"a: 1 (persistent)", "b: 1 (persistent)"}, nil, 1},
		"broken and written anew elsewhere": {func(t *testing.T, cfg Config) {
			writeFile(t, at(cfg, "a.xml"), nil)
			writeFile(t, at(cfg, "new.xml"), doc("a", "2"))
		}, []string{"a: 2 (persistent)", "b: 1 (persistent)"}, nil, 1},
		"a file that never was good": {func(t *testing.T, cfg Config) { writeFile(t, at(cfg, "new.xml"), nil) },
			[]string{"a: 1 (persistent)", "b: 1 (persistent)"}, nil, 1},
		"broken and moved": {func(t *testing.T, cfg Config) {
			must(t, os.Remove(at(cfg, "a.xml")))
			writeFile(t, at(cfg, "moved.xml"), nil)
		}, []string{"b: 1 (persistent)"}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			sequence(put("a", "1", true), put("b", "1", true))(t, open(t, cfg))
			c.by(t, cfg)
			for range 2 {
				force, faults, broken := found(t, open(t, cfg))
				if diff := cmp.Diff(c.force, force); diff != "" {
					t.Error(diff)
				}
				if !cmp.Equal(c.faults, faults) || len(broken) != c.broken {
					t.Error("faults", faults, "broken", broken)
				}
			}
		})
	}
}

// Of two files with one network the one in force stays, whatever their names.
func TestSecondFileWithTheOwnName(t *testing.T) {
	cfg := testConfig(t)
	writeFile(t, filepath.Join(cfg.PersistentDir, "mine.xml"), doc("n", "1"))
	open(t, cfg)
	writeFile(t, filepath.Join(cfg.PersistentDir, "n.xml"), doc("n", "2"))
	if force, _, broken := found(t, open(t, cfg)); !cmp.Equal(force, []string{"n: 1 (persistent)"}) || len(broken) != 1 {
		t.Error("got", force, broken)
	}
}

// What was refused keeps the definition from before.
func TestRefusedDocumentHasAFormerOne(t *testing.T) {
	cfg := testConfig(t)
	put("n", "1", true)(t, open(t, cfg))
	writeFile(t, filepath.Join(cfg.PersistentDir, "n.xml"), doc("n", "2"))
	for range 2 {
		s, err := Open(cfg)
		must(t, err)
		state, broken, err := s.Load()
		must(t, err)
		e := state.Current()[0]
		f, ok := e.Former()
		if string(e.Doc) != "n\n2" || !ok || string(f.Doc) != "n\n1" || !f.Persistent || f.Fault != nil || len(broken) > 0 {
			t.Fatalf("got %+v, %+v, %v", e, f, broken)
		}
		must(t, s.Keep(state, map[string]bool{"n": true}))
	}
	open(t, cfg)
	state, _, err := open(t, cfg).Load()
	must(t, err)
	if _, ok := state.Current()[0].Former(); ok {
		t.Error("what is in force has a former definition")
	}
}

// Files of a version that kept no copies work, and get theirs at the first start.
func TestUpgrade(t *testing.T) {
	cfg := testConfig(t)
	writeFile(t, filepath.Join(cfg.PersistentDir, "n.xml"), doc("n", "1"))
	writeFile(t, filepath.Join(cfg.RuntimeDir, "networks", "m.xml"), doc("m", "1"))
	wantCurrent(t, open(t, cfg), "m: 1", "n: 1 (persistent)")
	for _, path := range []string{filepath.Join(cfg.PersistentDir, "n.xml"), filepath.Join(cfg.RuntimeDir, "networks", "m.xml")} {
		must(t, os.Truncate(path, 0))
	}
	if force, faults, _ := found(t, open(t, cfg)); !cmp.Equal(force, []string{"m: 1", "n: 1 (persistent)"}) || len(faults) != 2 {
		t.Error("got", force, faults)
	}
}

// Copies that cannot be used are made again; without them, and with a file that
// cannot be used either, nothing is taken for absent.
func TestCopiesThatCannotBeUsed(t *testing.T) {
	cfg := testConfig(t)
	copies := filepath.Join(cfg.StateDir, "networks")
	put("n", "1", true)(t, open(t, cfg))
	for _, text := range []string{"", "{", `{"Network":{"Name":"other"}}`} {
		must(t, os.WriteFile(filepath.Join(copies, "n.json"), []byte(text), 0o644))
		open(t, cfg)
		must(t, os.Chmod(filepath.Join(cfg.PersistentDir, "n.xml"), 0o666))
		if force, faults, _ := found(t, open(t, cfg)); !cmp.Equal(force, []string{"n: 1 (persistent)"}) || len(faults) != 1 {
			t.Errorf("after %q: %v %v", text, force, faults)
		}
		must(t, os.Chmod(filepath.Join(cfg.PersistentDir, "n.xml"), 0o644))
	}
	must(t, os.Chmod(copies, 0o777))
	wantCurrent(t, open(t, cfg), "n: 1 (persistent)")
	must(t, os.Chmod(filepath.Join(cfg.PersistentDir, "n.xml"), 0o666))
	s, err := Open(cfg)
	must(t, err)
	if _, _, err := s.Load(); err == nil || !strings.Contains(err.Error(), copies) || !strings.Contains(err.Error(), "n.xml") {
		t.Error("got", err)
	}
}

// A degraded network can be removed, and replaced, by calls.
func TestCallsOnABrokenFile(t *testing.T) {
	for way, spoil := range map[string]func(t *testing.T, path string){"mode": ways()["mode"], "syntax": ways()["syntax"], "empty": ways()["empty"]} {
		t.Run(way, func(t *testing.T) {
			cfg := testConfig(t)
			put("n", "1", true)(t, open(t, cfg))
			spoil(t, filepath.Join(cfg.PersistentDir, "n.xml"))
			s := open(t, cfg)
			before := tree(t, cfg.PersistentDir, cfg.RuntimeDir, cfg.StateDir)
			must(t, done(t)(s.Remove("n", true))())
			must(t, done(t)(s.Put("n", doc("n", "2"), true))())
			if diff := cmp.Diff(before, tree(t, cfg.PersistentDir, cfg.RuntimeDir, cfg.StateDir)); diff != "" {
				t.Error("undo leaves (-before +after):\n", diff)
			}
			put("n", "2", true)(t, s)
			wantCurrent(t, open(t, cfg), "n: 2 (persistent)")
			spoil(t, filepath.Join(cfg.PersistentDir, "n.xml"))
			done(t)(open(t, cfg).Remove("n", true))
			wantCurrent(t, open(t, cfg))
		})
	}
}

// What was read of a document is the same when it comes back from its copy.
func TestCopyHoldsTheWholeNetwork(t *testing.T) {
	files, err := filepath.Glob("../network/testdata/*.xml")
	must(t, err)
	if len(files) < 30 {
		t.Fatal("documents are missing:", files)
	}
	cfg := testConfig(t)
	cfg.Parse = network.FromXML
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		n, err := network.FromXML(text)
		must(t, err)
		done(t)(open(t, cfg).Put(n.Name, text, true))
		k, err := readKept(filepath.Join(cfg.StateDir, "networks", fileName(n.Name)+keptSuffix))
		must(t, err)
		if diff := cmp.Diff(n, k.Network, cmp.Comparer(func(a, b network.Network) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
	}
}
