package systemd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// NewHandler returns a log handler for a service whose standard error is stderr.
// It writes:
//
//   - native journal entries with a field for each attribute, if stderr leads to
//     the journal;
//   - lines with a <N> priority in front, if systemd started the process and
//     something else reads its standard error, or the journal's socket is missing;
//   - plain lines otherwise.
func NewHandler(stderr *os.File, level slog.Leveler) slog.Handler {
	return &handler{level: level, sink: chooseSink(stderr, os.Getenv)}
}

// chooseSink uses the environment variables that systemd.exec(5) describes.
func chooseSink(stderr *os.File, getenv func(string) string) sink {
	toJournal := leadsTo(stderr, getenv("JOURNAL_STREAM"))
	if toJournal && journal.Enabled() {
		return &journalSink{send: journal.Send, fallback: &lineSink{to: stderr, prefix: priorityPrefix}}
	}
	// INVOCATION_ID is no evidence: a shell on a terminal may have inherited it.
	direct := getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid()) && !isTerminal(stderr)
	if toJournal || direct {
		return &lineSink{to: stderr, prefix: priorityPrefix}
	}
	return &lineSink{to: stderr, prefix: levelPrefix}
}

// leadsTo reports whether a file is the one that "device:inode" identifies.
func leadsTo(f *os.File, stream string) bool {
	device, inode, ok := strings.Cut(stream, ":")
	if !ok {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return device == strconv.FormatUint(st.Dev, 10) && inode == strconv.FormatUint(st.Ino, 10)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// field is one attribute, its name prefixed with those of its groups.
type field struct{ name, value string }

// sink writes complete records.
type sink interface {
	put(level slog.Level, message string, fields []field) error
}

type handler struct {
	level  slog.Leveler
	sink   sink
	groups string // "group." for each open group
	fields []field
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	fields := slices.Clip(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		fields = appendFields(fields, h.groups, a)
		return true
	})
	return h.sink.put(r.Level, r.Message, fields)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = slices.Clip(h.fields)
	for _, a := range attrs {
		next.fields = appendFields(next.fields, h.groups, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.groups += name + "."
	return &next
}

func appendFields(fields []field, groups string, a slog.Attr) []field {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return fields
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, inner := range v.Group() {
			fields = appendFields(fields, groups, inner)
		}
		return fields
	}
	return append(fields, field{groups + a.Key, v.String()})
}

// sentence formats a record on one line, for people.
func sentence(message string, fields []field) string {
	var b strings.Builder
	b.WriteString(oneLine(message))
	for _, f := range fields {
		if f.name == messageID {
			continue
		}
		value := oneLine(f.value)
		if value == "" || strings.ContainsAny(value, " =\"") {
			value = strconv.Quote(value)
		}
		b.WriteByte(' ')
		if f.name != "" {
			b.WriteString(f.name + "=")
		}
		b.WriteString(value)
	}
	return b.String()
}

// oneLine replaces control characters: names and errors come from untrusted
// callers, which must not be able to forge lines.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// lineSink writes one line for each record.
type lineSink struct {
	mu     sync.Mutex
	to     io.Writer
	prefix func(slog.Level) string
}

func (s *lineSink) put(level slog.Level, message string, fields []field) error {
	line := s.prefix(level) + sentence(message, fields) + "\n"
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := io.WriteString(s.to, line)
	return err
}

func levelPrefix(level slog.Level) string {
	return strings.ToLower(level.String()) + ": "
}

func priorityPrefix(level slog.Level) string {
	return fmt.Sprintf("<%d>", priority(level))
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
