package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// output prints a command's result. On a terminal, it truncates table lines that
// do not fit even when wrapped; in a pipe it truncates nothing.
type output struct {
	to    io.Writer
	width int // of the terminal; 0 for none
	err   error
}

func newOutput(to io.Writer) *output {
	return &output{to: to, width: terminalWidth(to)}
}

func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// linef prints one line.
func (o *output) linef(format string, args ...any) {
	o.write(fmt.Sprintf(format, args...) + "\n")
}

// write prints text as it is.
func (o *output) write(text string) {
	if o.err == nil {
		_, o.err = io.WriteString(o.to, text)
	}
}

// flush returns the first error of all that was printed.
func (o *output) flush() error {
	if o.err != nil {
		return fmt.Errorf("printing the result: %w", o.err)
	}
	return nil
}

func (o *output) json(v any) error {
	e := json.NewEncoder(o.to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// truncate shortens a line to width columns; 0 means any length.
func truncate(line string, width int) string {
	if width <= 1 || utf8.RuneCountInString(line) <= width {
		return line
	}
	runes := []rune(line)
	return string(runes[:width-1]) + "…"
}

// printable replaces control characters, which could control a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// sentence formats an error as one lower-case sentence on one line.
func sentence(s string) string {
	s = printable(strings.Join(strings.Fields(s), " "))
	s = strings.TrimSuffix(s, ".")
	first, size := utf8.DecodeRuneInString(s)
	second, _ := utf8.DecodeRuneInString(s[size:])
	if unicode.IsUpper(first) && unicode.IsLower(second) {
		s = string(unicode.ToLower(first)) + s[size:]
	}
	return s
}

// listed joins a list, or returns empty if it has no items.
func listed(items []string, empty string) string {
	if len(items) == 0 {
		return empty
	}
	return strings.Join(items, ", ")
}

// count formats a number of things, the noun in the plural unless it is one.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func orElse(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
