package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// doc is a document that parse understands; version makes two differ.
func doc(name, version string) []byte {
	return fmt.Appendf(nil, "%s\n%s", name, version)
}

func parse(text []byte) (network.Network, error) {
	name, _, ok := bytes.Cut(text, []byte("\n"))
	if !ok || len(name) == 0 {
		return network.Network{}, errors.New("no network in it")
	}
	return network.Network{Name: string(name)}, nil
}

func testConfig(t testing.TB) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("stored files have to belong to root, so this test has to run as root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "store") // in memory: thousands of faults, each with its waits for a disk
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{PersistentDir: filepath.Join(dir, "etc", "networks"), RuntimeDir: filepath.Join(dir, "run"),
		StateDir: filepath.Join(dir, "state"), Parse: parse}
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	state, _, err := s.Load()
	must(t, err)
	must(t, s.Keep(state, nil))
	return s
}

// forget is a reload, as far as files go.
func forget(s *Store) (undo func() error, err error) {
	state, _, err := s.Read()
	if err != nil {
		return nil, err
	}
	return s.ForgetRuntimeChanges(state)
}

// view is what the state says, as text: "name: document (persistent)".
func view(entries []Entry) []string {
	out := []string{}
	for _, e := range entries {
		line := strings.ReplaceAll(string(e.Doc), "\n", ": ")
		if e.Persistent {
			line += " (persistent)"
		}
		out = append(out, line)
	}
	return out
}

func wantCurrent(t *testing.T, s *Store, want ...string) {
	t.Helper()
	state, broken, err := s.Load()
	if err != nil || len(broken) > 0 {
		t.Fatal(err, broken)
	}
	if diff := cmp.Diff(append([]string{}, want...), view(state.Current())); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

func wantAfterReload(t *testing.T, s *Store, want ...string) {
	t.Helper()
	state, _, err := s.Load()
	must(t, err)
	if diff := cmp.Diff(append([]string{}, want...), view(state.AfterReload())); diff != "" {
		t.Errorf("after a reload (-want +got):\n%s", diff)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// done takes what Put and Remove give.
func done(t testing.TB) func(undo func() error, err error) func() error {
	return func(undo func() error, err error) func() error {
		t.Helper()
		must(t, err)
		return undo
	}
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, data, 0o644))
}

func TestWhatLastsHowLong(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	done(t)(s.Put("kept", doc("kept", "1"), true))
	done(t)(s.Put("gone", doc("gone", "1"), true))
	done(t)(s.Put("passing", doc("passing", "1"), false))
	done(t)(s.Put("kept", doc("kept", "2"), false))
	done(t)(s.Remove("gone", false))
	wantCurrent(t, s, "kept: 2 (persistent)", "passing: 1")
	wantAfterReload(t, s, "gone: 1 (persistent)", "kept: 1 (persistent)", "passing: 1")
	if !s.Persistent("gone") || s.Persistent("passing") {
		t.Error("Persistent is wrong")
	}

	s = open(t, cfg) // a restart changes nothing
	wantCurrent(t, s, "kept: 2 (persistent)", "passing: 1")

	undo, err := forget(s)
	must(t, err)
	wantCurrent(t, s, "gone: 1 (persistent)", "kept: 1 (persistent)", "passing: 1")
	must(t, undo())
	wantCurrent(t, s, "kept: 2 (persistent)", "passing: 1")

	must(t, os.RemoveAll(cfg.RuntimeDir)) // a reboot
	s = open(t, cfg)
	wantCurrent(t, s, "gone: 1 (persistent)", "kept: 1 (persistent)")
}

func TestPersistentFileRemovedByHandEndsItsChangesAtReload(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	done(t)(s.Put("n", doc("n", "1"), true))
	done(t)(s.Put("n", doc("n", "2"), false))
	must(t, os.Remove(filepath.Join(cfg.PersistentDir, "n.xml")))
	wantCurrent(t, s, "n: 2")
	wantAfterReload(t, s)
	_, err := forget(s)
	must(t, err)
	wantCurrent(t, s)
}

func TestFilePutByHandKeepsItsPathAndMode(t *testing.T) {
	cfg := testConfig(t)
	path := filepath.Join(cfg.PersistentDir, "my own name.xml")
	writeFile(t, path, doc("n", "1"))
	must(t, os.Chmod(path, 0o600))
	s := open(t, cfg)
	undo := done(t)(s.Put("n", doc("n", "2"), true))
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != "n\n2" {
		t.Errorf("the file holds %q", got)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode became %v", info.Mode())
	}
	must(t, undo())
	wantCurrent(t, s, "n: 1 (persistent)")
	done(t)(s.Remove("n", true))
	if files, err := os.ReadDir(cfg.PersistentDir); err != nil || len(files) != 0 {
		t.Error("files are left:", files, err)
	}
}

func TestFileThatWasNotReadIsNotOverwritten(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	writeFile(t, filepath.Join(cfg.PersistentDir, "n.xml"), doc("n", "by hand"))
	if _, err := s.Put("n", doc("n", "1"), true); !errors.Is(err, ErrUnread) {
		t.Error("got", err)
	}
	wantCurrent(t, s, "n: by hand (persistent)")
}

func TestDocumentMustBeReadable(t *testing.T) {
	s := open(t, testConfig(t))
	for name, text := range map[string][]byte{"broken": []byte("x"), "other": doc("n", "1")} {
		if _, err := s.Put(name, text, false); err == nil {
			t.Errorf("Put of %s succeeded", name)
		}
	}
	if _, err := s.Remove("absent", true); !errors.Is(err, ErrNotFound) {
		t.Error("Remove of an unknown network gives", err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	cases := map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"broken":    {func(t *testing.T, p string) { writeFile(t, p, []byte("nothing")) }, "no network"},
		"symlink":   {func(t *testing.T, p string) { must(t, os.Symlink("/etc/passwd", p)) }, "symbolic link"},
		"pipe":      {func(t *testing.T, p string) { must(t, syscall.Mkfifo(p, 0o644)) }, "not a regular file"},
		"folder":    {func(t *testing.T, p string) { must(t, os.Mkdir(p, 0o755)) }, "not a regular file"},
		"large":     {func(t *testing.T, p string) { writeFile(t, p, make([]byte, network.MaxXMLBytes+1)) }, "larger than"},
		"writable":  {func(t *testing.T, p string) { writeFile(t, p, doc("w", "1")); must(t, os.Chmod(p, 0o646)) }, "chmod"},
		"by group":  {func(t *testing.T, p string) { writeFile(t, p, doc("w", "1")); must(t, os.Chmod(p, 0o664)) }, "chmod"},
		"not root":  {func(t *testing.T, p string) { writeFile(t, p, doc("w", "1")); must(t, os.Chown(p, 1000, 0)) }, "chown"},
		"duplicate": {func(t *testing.T, p string) { writeFile(t, p, doc("good", "2")) }, "good.xml"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			writeFile(t, filepath.Join(cfg.PersistentDir, "good.xml"), doc("good", "1"))
			bad := filepath.Join(cfg.PersistentDir, "bad.xml")
			c.make(t, bad)
			s, err := Open(cfg)
			must(t, err)
			state, broken, err := s.Load()
			must(t, err)
			if diff := cmp.Diff([]string{"good: 1 (persistent)"}, view(state.Current())); diff != "" {
				t.Error(diff)
			}
			if len(broken) != 1 || broken[0].Path != bad || !strings.Contains(broken[0].Error(), c.want) {
				t.Errorf("got %v, want one error of bad.xml with %q", broken, c.want)
			}
		})
	}
}

func TestFolderThatOthersMayWriteIsRefused(t *testing.T) {
	cfg := testConfig(t)
	must(t, os.MkdirAll(cfg.PersistentDir, 0o755))
	must(t, os.Chmod(cfg.PersistentDir, 0o777))
	s, err := Open(cfg)
	must(t, err)
	if _, _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "chmod it to 0755") {
		t.Error("got", err)
	}
}

func TestOtherFilesAreIgnored(t *testing.T) {
	cfg := testConfig(t)
	for _, name := range []string{".hidden.xml", "n.xml~", "n.xml.bak", "README"} {
		writeFile(t, filepath.Join(cfg.PersistentDir, name), []byte("nothing"))
	}
	wantCurrent(t, open(t, cfg))
}

func TestLongAndHostileNames(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	long := strings.Repeat("ü", 64) // 128 bytes, 384 when escaped
	names := []string{long, long[:126] + "ä", "../../etc/passwd", "a b", "_2e", "."}
	for _, name := range names {
		done(t)(s.Put(name, doc(name, "1"), true))
		done(t)(s.Put(name, doc(name, "2"), false))
	}
	state, broken, err := s.Load()
	if err != nil || len(broken) > 0 || len(state.Current()) != len(names) {
		t.Fatal(err, broken, view(state.Current()))
	}
	for _, name := range names {
		done(t)(s.Remove(name, false))
	}
	wantCurrent(t, open(t, cfg))
	files, err := filepath.Glob(filepath.Join(cfg.PersistentDir, "*.xml"))
	if err != nil || len(files) != len(names) {
		t.Error("files are not all in their folder:", files, err)
	}
}

func TestCounters(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	if got, err := s.LoadCounters(); err != nil || len(got) != 0 {
		t.Error("before anything is saved:", got, err)
	}
	want := map[string]ruleset.Counters{"n/": {FromGuestPackets: 1<<64 - 1, RejectedToGuestPackets: 2}}
	must(t, s.SaveCounters(want))
	got, err := open(t, cfg).LoadCounters()
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	writeFile(t, filepath.Join(cfg.RuntimeDir, countersFile), []byte("{"))
	if got, err := s.LoadCounters(); err != nil || len(got) != 0 {
		t.Error("of a broken file:", got, err)
	}
	wantFault(t, s, countersFile)
}

func BenchmarkPutRuntime(b *testing.B) { benchmarkPut(b, false) }

func BenchmarkPutPersistent(b *testing.B) { benchmarkPut(b, true) }

func benchmarkPut(b *testing.B, persistent bool) {
	cfg, disk := testConfig(b), b.TempDir()
	cfg.PersistentDir, cfg.StateDir = filepath.Join(disk, "networks"), filepath.Join(disk, "state")
	s := open(b, cfg)
	content := append(doc("n", ""), make([]byte, 1500)...)
	for b.Loop() {
		done(b)(s.Put("n", content, persistent))
	}
}

func BenchmarkLoad1000(b *testing.B) {
	s := open(b, testConfig(b))
	for i := range 1000 {
		name := fmt.Sprint("net", i)
		done(b)(s.Put(name, append(doc(name, ""), make([]byte, 1500)...), true))
	}
	for b.Loop() {
		if state, _, err := s.Load(); err != nil || len(state.Current()) != 1000 {
			b.Fatal(err)
		}
	}
}
