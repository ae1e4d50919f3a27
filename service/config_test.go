package service

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestParseConfig(t *testing.T) {
	for _, c := range []struct {
		text, backend string
		line          int
	}{
		{"", "", 0},
		{"# firewall_backend = \"iptables\"\n", "", 0},
		{"firewall_backend = \"nftables\"\n", "nftables", 1},
		{"\n  firewall_backend='iptables'  # why\n", "iptables", 2},
		{"firewall_backend=auto#x", "auto", 1},
		{"own_table = false\nfirewall_backend = nftables", "nftables", 2},
	} {
		got, err := ParseConfig([]byte(c.text), "virtfirewalld.conf")
		if err != nil || got.Own.Value != c.backend || got.Own.Line != c.line {
			t.Errorf("%q: got %+v, %v", c.text, got, err)
		}
	}
}

func TestParseConfigErrorsNameFileAndLine(t *testing.T) {
	for _, text := range []string{
		"firewall_backend = \"pf\"", "firewall_backend = \"nftables", "firewall_backend nftables",
		"nonsense = 1", "own_table = maybe", "firewall_backend = \"nftables\" x",
	} {
		_, err := ParseConfig([]byte("# first\n"+text+"\n"), "/etc/x.conf")
		if err == nil || !strings.Contains(err.Error(), "/etc/x.conf, line 2: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSetBackendKeepsTheRest(t *testing.T) {
	dir := ConfigFiles{Dir: t.TempDir()}
	file := filepath.Join(dir.Dir, ConfigFile)
	for _, c := range []struct{ before, after string }{
		{"", "firewall_backend = \"nftables\"\n"},
		{"# mine\nown_table = false\n", "# mine\nown_table = false\nfirewall_backend = \"nftables\"\n"},
		{"# a\nfirewall_backend = 'auto' # b\nown_table = 1\n", "# a\nfirewall_backend = \"nftables\"\nown_table = 1\n"},
	} {
		if err := os.WriteFile(file, []byte(c.before), 0o644); err != nil {
			t.Fatal(err)
		}
		setBackend(t, dir)
		if got, _ := os.ReadFile(file); string(got) != c.after {
			t.Errorf("after %q: %q", c.before, got)
		}
	}
	wantFiles(t, dir.Dir, ConfigFile)
}

func setBackend(t *testing.T, f ConfigFiles) {
	t.Helper()
	put, drop, err := f.StageBackend("nftables")
	must(t, err)
	defer drop()
	must(t, put())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks the contents of a folder, including hidden files.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("%s has %q, want %q", dir, names, want)
	}
}

// A symbolic link is followed, and stays one; a write that does not complete
// changes nothing.
func TestSetBackendThroughALink(t *testing.T) {
	dir, elsewhere := ConfigFiles{Dir: t.TempDir()}, t.TempDir()
	to, file := filepath.Join(elsewhere, "real"), filepath.Join(dir.Dir, ConfigFile)
	must(t, os.WriteFile(to, []byte("own_table = false\n"), 0o644))
	must(t, os.Symlink(to, file))
	_, drop, err := dir.StageBackend("nftables")
	must(t, err)
	drop()
	wantFiles(t, elsewhere, "real")
	setBackend(t, dir)
	if c, err := dir.Read(); err != nil || c.Own.Value != "nftables" || c.OwnTable || c.Own.File != file {
		t.Errorf("got %+v, %v", c, err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is no link any more:", info.Mode(), err)
	}
	wantFiles(t, elsewhere, "real")
	must(t, os.Remove(to))
	if _, _, err := dir.StageBackend("nftables"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error("through a link to nothing:", err)
	}
}

// A configuration that others may write, or that is not text, is not used, and
// nothing waits for it; a start uses the last good one.
func TestConfigurationThatCannotBeUsed(t *testing.T) {
	long := "# " + strings.Repeat("x", 70000) + "\n"
	for name, c := range map[string]struct {
		spoil func(file, libvirt string) error
		words []string
	}{
		"mode":         {func(f, _ string) error { return os.Chmod(f, 0o646) }, []string{ConfigFile, "0646", "chmod it to 0644"}},
		"folder":       {func(f, _ string) error { return os.Chmod(filepath.Dir(f), 0o777) }, []string{ConfigFile, "chmod it to 0755"}},
		"pipe":         {func(f, _ string) error { return errors.Join(os.Remove(f), syscall.Mkfifo(f, 0o644)) }, []string{ConfigFile, "not a regular file"}},
		"device":       {func(f, _ string) error { return errors.Join(os.Remove(f), os.Symlink("/dev/zero", f)) }, []string{ConfigFile, "not a regular file"}},
		"loop":         {func(f, _ string) error { return errors.Join(os.Remove(f), os.Symlink(f, f)) }, []string{ConfigFile, "too many links"}},
		"long line":    {func(f, _ string) error { return os.WriteFile(f, []byte("\n"+long), 0o644) }, []string{ConfigFile + ", line 2", "70003 bytes"}},
		"zero":         {func(f, _ string) error { return os.WriteFile(f, []byte("\n#a\x00\n"), 0o644) }, []string{ConfigFile + ", line 2", "byte 0"}},
		"huge":         {func(f, _ string) error { return os.Truncate(f, 1<<40) }, []string{ConfigFile, "larger than"}},
		"libvirt pipe": {func(_, l string) error { return errors.Join(os.Remove(l), syscall.Mkfifo(l, 0o644)) }, []string{"network.conf", "not a regular file"}},
		"libvirt huge": {func(_, l string) error { return os.Truncate(l, 1<<40) }, []string{"network.conf", "larger than"}},
		"libvirt text": {func(_, l string) error { return os.WriteFile(l, []byte("\nx\n"), 0o644) }, []string{"network.conf, line 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			f := ConfigFiles{Dir: filepath.Join(top, "etc"), Libvirt: filepath.Join(top, "network.conf"), State: filepath.Join(top, "state")}
			file := filepath.Join(f.Dir, ConfigFile)
			must(t, os.Mkdir(f.Dir, 0o755))
			must(t, os.WriteFile(file, []byte("own_table = false\nfirewall_backend = \"iptables\"\n"), 0o644))
			must(t, os.WriteFile(f.Libvirt, nil, 0o644))
			good, err := f.Read()
			must(t, err)
			must(t, f.Remember(good))
			must(t, c.spoil(file, f.Libvirt))
			_, err = f.Read()
			for _, word := range c.words {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("the error lacks %q: %v", word, err)
				}
			}
			if got, unusable := f.AtStart(); unusable == nil || got != good {
				t.Errorf("a start goes by %+v, %v", got, unusable)
			}
			if !strings.HasPrefix(name, "libvirt") {
				if _, _, err := f.StageBackend("nftables"); (err == nil) != (name == "long line" || name == "zero") {
					t.Error("writing it:", err)
				}
			}
			must(t, os.WriteFile(filepath.Join(f.State, settingsFile), []byte("{"), 0o644))
			if got, _ := f.AtStart(); got.Own.Value != "" || !got.OwnTable {
				t.Errorf("without a last good one a start goes by %+v", got)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("firewall_backend = \"nftables\" # x\nown_table=0\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig([]byte(text), "f")
		if v := c.Own.Value; err == nil && v != "" && v != "auto" && v != "nftables" && v != "iptables" {
			t.Errorf("accepted backend %q", v)
		}
	})
}
