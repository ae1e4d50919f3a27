package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestSentence(t *testing.T) {
	for said, want := range map[string]string{
		"There is no bridge virbr0.":      "there is no bridge virbr0",
		"XML is not well-formed":          "XML is not well-formed",
		"two\n  lines":                    "two lines",
		"a name with \x1b[31mred\x07":     "a name with \ufffd[31mred\ufffd",
		"émile":                           "émile",
		"A":                               "A",
		"":                                "",
		"ends with an ellipsis, like … .": "ends with an ellipsis, like … ",
	} {
		if got := sentence(said); got != want {
			t.Errorf("%q becomes %q, not %q", said, got, want)
		}
	}
}

func TestTableIsCutOnATerminalOnly(t *testing.T) {
	rows := [][]string{{"NAME", "ADDRESSES"}, {"défaut", "192.168.122.1/24"}, {"a\tb\n", "-"}}
	for _, test := range []struct {
		width int
		want  string
	}{
		{0, "NAME    ADDRESSES\ndéfaut  192.168.122.1/24\na b     -\n"},
		{80, "NAME    ADDRESSES\ndéfaut  192.168.122.1/24\na b     -\n"},
		{12, "NAME    ADD…\ndéfaut  192…\na b     -\n"},
	} {
		var text bytes.Buffer
		(&output{to: &text, width: test.width}).table(rows)
		if diff := cmp.Diff(test.want, text.String()); diff != "" {
			t.Errorf("width %d: %s", test.width, diff)
		}
	}
}

func TestTerminalWidth(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 77}); err != nil {
		t.Fatal(err)
	}
	if got := terminalWidth(terminal); got != 77 {
		t.Errorf("a terminal of 77 columns has %d", got)
	}
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := terminalWidth(file); got != 0 {
		t.Errorf("a file has %d columns", got)
	}
	if got := terminalWidth(&bytes.Buffer{}); got != 0 {
		t.Errorf("a buffer has %d columns", got)
	}
}

// TestTablesFit holds tables to 80 columns, with nothing left out: what does not
// fit goes on in the next line.
func TestTablesFit(t *testing.T) {
	long := strings.Repeat("büro-", 5) + "eleven"
	networks := networkList{
		{Name: "default", Bridge: "virbr0", ForwardMode: "isolated", State: "active", BoundZone: "libvirt-routed", Addresses: []string{"192.168.122.1/24"}},
		{Name: long, Bridge: "fifteen-letters", ForwardMode: "isolated", State: "active", BoundZone: "libvirt-routed",
			Addresses: []string{"192.168.122.1/24", "10.255.255.1/24", "fd00:1234:5678:9abc:def0:1234:5678:9abc/64"}},
	}
	var text bytes.Buffer
	o := &output{to: &text}
	networks.text(o)
	counters{{Name: long, FromGuestPackets: 1e8, FromGuestBytes: 1e11, ToGuestPackets: 1e8,
		ToGuestBytes: 1e11, RejectedFromGuestPackets: 1e5, RejectedToGuestPackets: 1e5}}.text(o)
	zoneList{Running: true, Bindings: []binding{{"virbr0", strings.Repeat("zone-", 20)}}}.text(o)
	for line := range strings.Lines(text.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestRowsGoOn(t *testing.T) {
	rows := [][]string{{"NAME", "ADDRESSES"}, {"default", "10.1.0.1/24, 10.2.0.1/24, fd00::1/64"}, {"longer than that", "-"}}
	for _, test := range []struct {
		width int
		want  string
	}{
		{60, "NAME              ADDRESSES\ndefault           10.1.0.1/24, 10.2.0.1/24, fd00::1/64\nlonger than that  -\n"},
		{45, "NAME              ADDRESSES\ndefault           10.1.0.1/24, 10.2.0.1/24,\n                  fd00::1/64\nlonger than that  -\n"},
		{26, "NAME         ADDRESSES\ndefault      10.1.0.1/24,\n             10.2.0.1/24,\n             fd00::1/64\nlonger than  -\nthat\n"},
		{23, "NAME       ADDRESSES\ndefault    10.1.0.1/24,\n           10.2.0.1/24,\n           fd00::1/64\nlonger     -\nthan that\n"},
	} {
		var text bytes.Buffer
		(&output{to: &text, width: test.width}).table(rows, 0, 1)
		if diff := cmp.Diff(test.want, text.String()); diff != "" {
			t.Errorf("width %d: %s", test.width, diff)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 networks", 1: "1 network", 2: "2 networks"} {
		if got := count(n, "network"); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	if got := question(1); got != "Remove 1 network and its rules? [y/N] " {
		t.Error(got)
	}
	for want, c := range map[string]networkCounts{
		"0 networks":        {},
		"1 network, active": {Total: 1, Active: 1},
		"7 networks, 1 failed, 2 degraded, 3 waiting": {Total: 7, Active: 1, Failed: 1, Degraded: 2, Waiting: 3},
	} {
		if got := c.text(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestRulesCannotCommandTheTerminal(t *testing.T) {
	got := printableRules("table inet t {\n\tcomment \"a\x1b[2Jb\"\n}\n\n")
	want := "table inet t {\n\tcomment \"a\ufffd[2Jb\"\n}\n"
	if got != want {
		t.Errorf("%q, not %q", got, want)
	}
}
