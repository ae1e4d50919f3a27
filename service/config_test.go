package service

import (
	"os"
	"path/filepath"
	"strings"
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
		if err := dir.SetBackend("nftables"); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); string(got) != c.after {
			t.Errorf("after %q: %q", c.before, got)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir.Dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
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
