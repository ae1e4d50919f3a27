package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

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

// TestListFits holds the most usual tables to 80 columns.
func TestListFits(t *testing.T) {
	var text bytes.Buffer
	o := &output{to: &text}
	o.table([][]string{
		{"NAME", "BRIDGE", "MODE", "STATE", "ZONE", "ADDRESSES"},
		{"default", "virbr0", "isolated", "degraded", "libvirt-routed", "192.168.122.1/24"},
	})
	counters{{Name: "default", FromGuestPackets: 1e8, FromGuestBytes: 1e11, ToGuestPackets: 1e8,
		ToGuestBytes: 1e11, RejectedFromGuestPackets: 1e5, RejectedToGuestPackets: 1e5}}.text(o)
	for line := range strings.Lines(text.String()) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

func TestRulesCannotCommandTheTerminal(t *testing.T) {
	got := endWithNewline("table inet t {\n\tcomment \"a\x1b[2Jb\"\n}\n\n")
	want := "table inet t {\n\tcomment \"a\ufffd[2Jb\"\n}\n"
	if got != want {
		t.Errorf("%q, not %q", got, want)
	}
}
