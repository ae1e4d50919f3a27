package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errFault = errors.New("no room left")

// faultyDisk fails the system call number at, and with dead all after it, as
// for a process that was killed there. A killed write leaves half of the data.
type faultyDisk struct {
	disk
	at, calls int
	dead      bool
}

func (d *faultyDisk) fails() bool {
	d.calls++
	return d.calls == d.at || d.dead && d.calls > d.at
}

func (d *faultyDisk) Create(path string, mode fs.FileMode) (file, error) {
	if d.fails() {
		return nil, errFault
	}
	f, err := d.disk.Create(path, mode)
	return faultyFile{f, d}, err
}

func (d *faultyDisk) Rename(from, to string) error {
	if d.fails() {
		return errFault
	}
	return d.disk.Rename(from, to)
}

func (d *faultyDisk) Remove(path string) error {
	if d.fails() {
		return errFault
	}
	return d.disk.Remove(path)
}

func (d *faultyDisk) SyncAll(dir string) error {
	if d.fails() {
		return errFault
	}
	return d.disk.SyncAll(dir)
}

func (d *faultyDisk) SyncDir(path string) error {
	if d.fails() {
		return errFault
	}
	return d.disk.SyncDir(path)
}

func (d *faultyDisk) MkdirAll(path string) error {
	if d.fails() {
		return errFault
	}
	return d.disk.MkdirAll(path)
}

type faultyFile struct {
	file
	d *faultyDisk
}

func (f faultyFile) Write(p []byte) (int, error) {
	if f.d.fails() {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, errFault
	}
	return f.file.Write(p)
}

func (f faultyFile) Sync() error {
	if f.d.fails() {
		return errFault
	}
	return f.file.Sync()
}

// tree is every file below a folder with its content and mode, temporary ones
// left out.
func tree(t testing.TB, dirs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			all[path] = fmt.Sprintf("%v %q", info.Mode(), data)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return all
}

type changeCase struct {
	name   string
	before func(t testing.TB, s *Store)
	change func(s *Store) (func() error, error)
}

func put(name, version string, persistent bool) func(testing.TB, *Store) {
	return func(t testing.TB, s *Store) { done(t)(s.Put(name, doc(name, version), persistent)) }
}

func sequence(all ...func(testing.TB, *Store)) func(testing.TB, *Store) {
	return func(t testing.TB, s *Store) {
		for _, f := range all {
			f(t, s)
		}
	}
}

func changes() []changeCase {
	removed := func(t testing.TB, s *Store) { done(t)(s.Remove("n", false)) }
	add := func(version string, persistent bool) func(*Store) (func() error, error) {
		return func(s *Store) (func() error, error) { return s.Put("n", doc("n", version), persistent) }
	}
	remove := func(persistent bool) func(*Store) (func() error, error) {
		return func(s *Store) (func() error, error) { return s.Remove("n", persistent) }
	}
	nothing := sequence()
	return []changeCase{
		{"new runtime", nothing, add("1", false)},
		{"new persistent", nothing, add("1", true)},
		{"other runtime", put("n", "1", false), add("2", false)},
		{"other persistent", put("n", "1", true), add("2", true)},
		{"runtime change", put("n", "1", true), add("2", false)},
		{"change ends with a new file", sequence(put("n", "1", true), put("n", "2", false)), add("3", true)},
		{"runtime becomes persistent", put("n", "1", false), add("2", true)},
		{"removed becomes persistent", sequence(put("n", "1", true), removed), add("2", true)},
		{"removed becomes runtime", sequence(put("n", "1", true), removed), add("2", false)},
		{"removal of runtime", put("n", "1", false), remove(false)},
		{"removal until reload", put("n", "1", true), remove(false)},
		{"removal until reload of a change", sequence(put("n", "1", true), put("n", "2", false)), remove(false)},
		{"removal of all", sequence(put("n", "1", true), put("n", "2", false)), remove(true)},
		{"reload", sequence(put("n", "1", true), put("n", "2", false), put("m", "1", false), put("k", "1", true), put("k", "2", false)),
			forget},
	}
}

// Killed between any two system calls, the files hold the old state or the new
// one when the service starts again; a single failed call leaves the old one.
func TestFaults(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			base := testConfig(t)
			old, changed := run(t, base, c, nil, false)
			for _, dead := range []bool{true, false} {
				for at := 1; ; at++ {
					d := &faultyDisk{disk: realDisk{}, at: at, dead: dead}
					_, got := run(t, base, c, d, dead)
					if d.calls < at {
						break // the change has fewer calls
					}
					allowed := []map[string]string{old}
					if dead {
						allowed = append(allowed, changed)
					}
					if !slices.ContainsFunc(allowed, func(want map[string]string) bool { return cmp.Equal(want, got) }) {
						t.Errorf("fault at call %d, killed %v (-old +got):\n%s", at, dead, cmp.Diff(old, got))
					}
				}
			}
		})
	}
}

// run makes the change with a disk and gives the files before it and after a
// restart of the service.
func run(t *testing.T, cfg Config, c changeCase, d *faultyDisk, killed bool) (before, after map[string]string) {
	t.Helper()
	dirs := []string{cfg.PersistentDir, cfg.RuntimeDir, cfg.StateDir}
	for _, dir := range dirs {
		must(t, os.RemoveAll(dir))
	}
	s := open(t, cfg)
	c.before(t, s)
	before = tree(t, dirs...)
	if d != nil {
		s.cfg.disk = d
	}
	undo, err := c.change(s)
	if d != nil && d.calls >= d.at && !killed && err == nil {
		t.Errorf("call %d failed, and the change succeeded", d.at)
	}
	if d != nil && !killed && err != nil {
		// What the store knows is what is on the disk: the change succeeds now.
		if !cmp.Equal(before, tree(t, dirs...)) {
			t.Errorf("fault at call %d is not undone (-old +new):\n%s", d.at, cmp.Diff(before, tree(t, dirs...)))
		}
	}
	if d == nil {
		must(t, err)
		after = tree(t, dirs...)
		must(t, undo())
		if diff := cmp.Diff(before, tree(t, dirs...)); diff != "" {
			t.Errorf("undo leaves (-old +new):\n%s", diff)
		}
		return before, after
	}
	open(t, cfg)
	return before, tree(t, dirs...)
}

// The same with files that cannot be used by the time of the start: the last
// good definitions are those of the old state or the new one, and nothing that
// was removed comes back.
func TestFaultsAndBrokenFiles(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			old := killedAndBroken(t, cfg, c, &faultyDisk{disk: realDisk{}, at: 1, dead: true})
			changed := killedAndBroken(t, cfg, c, &faultyDisk{disk: realDisk{}})
			for at := 2; ; at++ {
				d := &faultyDisk{disk: realDisk{}, at: at, dead: true}
				got := killedAndBroken(t, cfg, c, d)
				if d.calls < at {
					break
				}
				if !cmp.Equal(got, old) && !cmp.Equal(got, changed) {
					t.Errorf("killed at call %d: %q, neither %q nor %q", at, got, old, changed)
				}
			}
		})
	}
}

func killedAndBroken(t *testing.T, cfg Config, c changeCase, d *faultyDisk) []string {
	t.Helper()
	for _, dir := range []string{cfg.PersistentDir, cfg.RuntimeDir, cfg.StateDir} {
		must(t, os.RemoveAll(dir))
	}
	s := open(t, cfg)
	c.before(t, s)
	s.cfg.disk = d
	_, _ = c.change(s)
	for _, dir := range []string{cfg.PersistentDir, filepath.Join(cfg.RuntimeDir, "networks")} {
		files, err := filepath.Glob(filepath.Join(dir, "*.xml"))
		must(t, err)
		for _, file := range files {
			must(t, os.Truncate(file, 0))
		}
	}
	state, _, err := open(t, cfg).Load()
	must(t, err)
	return view(state.Current())
}
