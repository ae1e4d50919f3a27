package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLines(t *testing.T) {
	for _, test := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"levels", func(l *slog.Logger) { l.Debug("a"); l.Info("b"); l.Warn("c"); l.Error("d") }, "<6>b\n<4>c\n<3>d\n"},
		{"attributes", func(l *slog.Logger) { l.Info("added", "network", "default", "rules", 7) }, "<6>added network=default rules=7\n"},
		{"quotes", func(l *slog.Logger) { l.Info("failed", "error", errors.New("no such bridge"), "zone", "") },
			"<6>failed error=\"no such bridge\" zone=\"\"\n"},
		{"a forged line", func(l *slog.Logger) { l.Info("added", "network", "a\n<0>panic\x1b[31m") },
			"<6>added network=\"a <0>panic [31m\"\n"},
		{"with and groups", func(l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).Info("m", slog.Group("h", "c", 3), slog.Attr{})
		}, "<6>m a=1 g.b=2 g.h.c=3\n"},
		{"message ID", func(l *slog.Logger) { l.Info("m", MessageID(MessageRepaired)) }, "<6>m\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var text bytes.Buffer
			test.log(slog.New(&handler{level: slog.LevelInfo, sink: &lineSink{to: &text, prefix: priorityPrefix}}))
			if diff := cmp.Diff(test.want, text.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWithIsAValue shows that two loggers made from one do not share attributes.
func TestWithIsAValue(t *testing.T) {
	var text bytes.Buffer
	base := slog.New(&handler{level: slog.LevelInfo, sink: &lineSink{to: &text, prefix: levelPrefix}}).With("a", 1, "b", 2, "c", 3)
	one, two := base.With("n", "one"), base.With("n", "two")
	one.Info("m")
	two.Info("m")
	want := "info: m a=1 b=2 c=3 n=one\ninfo: m a=1 b=2 c=3 n=two\n"
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFieldNames(t *testing.T) {
	for attribute, want := range map[string]string{
		"network":                "NETWORK",
		"backend.name":           "VIRTFIREWALL_BACKEND_NAME",
		"_odd key=é":             "VIRTFIREWALL__ODD_KEY__",
		"":                       "",
		strings.Repeat("x", 100): "VIRTFIREWALL_" + strings.Repeat("X", 51),
	} {
		if got := fieldName(attribute); got != want {
			t.Errorf("%q becomes %q, not %q", attribute, got, want)
		}
	}
}

// TestJournalAway shows that nothing is lost while journald restarts.
func TestJournalAway(t *testing.T) {
	var text bytes.Buffer
	s := &journalSink{
		send:     func(string, journal.Priority, map[string]string) error { return unix.ECONNREFUSED },
		fallback: &lineSink{to: &text, prefix: priorityPrefix},
	}
	slog.New(&handler{level: slog.LevelInfo, sink: s}).Warn("m", "network", "default")
	if got, want := text.String(), "<4>m network=default\n"; got != want {
		t.Errorf("stderr has %q, not %q", got, want)
	}
}

func TestChooseSink(t *testing.T) {
	pipe, other := aPipe(t), aPipe(t)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name   string
		stderr *os.File
		env    map[string]string
		want   string
	}{
		{"no systemd", pipe, nil, "warn: m\n"},
		{"another stream", pipe, map[string]string{"JOURNAL_STREAM": stream(t, other)}, "warn: m\n"},
		{"nonsense", pipe, map[string]string{"JOURNAL_STREAM": "journal"}, "warn: m\n"},
		{"started by systemd", pipe, map[string]string{"SYSTEMD_EXEC_PID": self}, "<4>m\n"},
		{"started by a child of systemd", pipe, map[string]string{"SYSTEMD_EXEC_PID": "1"}, "warn: m\n"},
		{"on a terminal", terminal, map[string]string{"SYSTEMD_EXEC_PID": self}, "warn: m\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ok := chooseSink(test.stderr, func(name string) string { return test.env[name] }).(*lineSink)
			if !ok {
				t.Fatal("native entries")
			}
			if got := s.prefix(slog.LevelWarn) + "m\n"; got != test.want {
				t.Errorf("a line is %q, not %q", got, test.want)
			}
		})
	}
}

func aPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

func stream(t *testing.T, f *os.File) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func TestEnabled(t *testing.T) {
	var level slog.LevelVar
	h := NewHandler(os.Stderr, &level)
	if h.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug is on at info")
	}
	level.Set(slog.LevelDebug)
	if !h.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug stays off after a change of level")
	}
}
