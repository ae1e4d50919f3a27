package choice

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadLibvirt(t *testing.T) {
	for _, c := range []struct {
		text, value string
		line        int
	}{
		{"", "", 0},
		{"# firewall_backend = \"iptables\"\n#\n", "", 0},
		{"firewall_backend = \"nftables\"\n", "nftables", 1},
		{"\n\t firewall_backend='iptables'  # why\n", "iptables", 2},
		{"a = 1\nb = [ 'x',\n \"y # no comment\",\n ]\nfirewall_backend=\"none\"", "none", 5},
		{"a=-17;firewall_backend=\"pf\"", "pf", 1},
		{"text = \"\"\"two\nfirewall_backend = 'iptables'\n\"\"\"\r\nfirewall_backend = \"nftables\"\r\n", "nftables", 4},
		{"firewall_backend = \"nftables\"\nfirewall_backend = \"iptables\"\n", "nftables", 1},
		{"firewall_backend_priority = [ \"iptables\" ]\n", "", 0},
		{"empty = []\nfirewall_backend = \"\"\n", "", 2},
		{"firewall_backend = \"something new\"\n", "something new", 1},
	} {
		value, line, err := ReadLibvirt(written(t, c.text))
		if err != nil || value != c.value || line != c.line {
			t.Errorf("%q: got %q, line %d, %v", c.text, value, line, err)
		}
	}
}

func TestReadLibvirtNamesFileAndLine(t *testing.T) {
	for _, text := range []string{
		"firewall_backend", "firewall_backend \"iptables\"", "firewall_backend = iptables", "firewall_backend = 1",
		"firewall_backend = [ \"iptables\" ]", "a = \"not closed\n\"", "a = 'x", "a = [ 1 2 ]", "a = [ 1,", "a = 1 b = 2",
		"= 1", "a = -", "a = [[[[", "a = " + strings.Repeat("[", 200),
	} {
		file := written(t, "# first\n"+text)
		value, line, err := ReadLibvirt(file)
		if err == nil || !strings.HasPrefix(err.Error(), file+", line 2: ") || value != "" || line != 0 {
			t.Errorf("%q: got %q, line %d, %v", text, value, line, err)
		}
	}
}

func TestReadLibvirtFiles(t *testing.T) {
	dir := t.TempDir()
	if value, line, err := ReadLibvirt(filepath.Join(dir, "network.conf")); value != "" || line != 0 || err != nil {
		t.Errorf("a missing file gives %q, line %d, %v", value, line, err)
	}
	if _, _, err := ReadLibvirt(dir); err == nil {
		t.Error("a directory was read")
	}
	if _, _, err := ReadLibvirt(written(t, strings.Repeat("#", maxFile+1))); err == nil {
		t.Error("a file without end was read")
	}
}

func written(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "network.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Whatever the file holds, a value that is found stands in the line given, and
// an error names a line that the file has.
func FuzzParseLibvirt(f *testing.F) {
	for _, seed := range []string{
		"", "firewall_backend = \"nftables\"\n", "a = [ 1, 'b' ] # c\nfirewall_backend='x'", "t = \"\"\"\n\n\"\"\"\nfirewall_backend=\"\"\"a\"\"\"",
		"firewall_backend = 7", "a = [[", "\r\n;",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, line, err := parseLibvirt(text)
		lines := strings.Split(string(text), "\n")
		if line < 0 || line > len(lines) || err != nil && line == 0 {
			t.Fatalf("line %d of %d (%v)", line, len(lines), err)
		}
		if err != nil && value != "" {
			t.Errorf("%q comes with %v", value, err)
		}
		if err == nil && line > 0 && !strings.Contains(lines[line-1], "firewall_backend") {
			t.Errorf("line %d is %q", line, lines[line-1])
		}
	})
}
