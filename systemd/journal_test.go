package systemd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// inJournalRoom makes the test program log to a journal's socket instead of
// running tests.
const inJournalRoom = "VIRTFIREWALL_TEST_JOURNAL_ROOM"

func TestMain(m *testing.M) {
	if os.Getenv(inJournalRoom) == "" {
		os.Exit(m.Run())
	}
	if err := journalRoom(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestNativeEntries logs to the socket of the journal. Its path is fixed, so
// the program runs again with a /run of its own.
func TestNativeEntries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a mount namespace: run it as root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inJournalRoom+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error has %q beside the entries", &stderr)
	}
	want := []string{
		"CAUSE=flush ruleset",
		"MESSAGE=put back network=default cause=\"flush ruleset\" nameless",
		"MESSAGE_ID=" + MessageRepaired,
		"NETWORK=default",
		"PRIORITY=4",
		"SYSLOG_IDENTIFIER=virtfirewalld",
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
		t.Error(diff)
	}
}

// journalRoom prints the fields of one entry as journald would receive it.
func journalRoom() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a /run of our own: %w", err)
	}
	if err := os.MkdirAll("/run/systemd/journal", 0o755); err != nil {
		return err
	}
	address := &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(os.Stderr.Fd()), &st); err != nil {
		return err
	}
	if err := os.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino)); err != nil {
		return err
	}
	slog.New(NewHandler(os.Stderr, slog.LevelInfo)).Warn("put back",
		"network", "default", "cause", "flush ruleset", MessageID(MessageRepaired), "", "nameless")
	return printEntry(conn)
}

func printEntry(conn *net.UnixConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	entry := make([]byte, 4096)
	n, err := conn.Read(entry)
	if err != nil {
		return err
	}
	fields := strings.Split(strings.TrimSuffix(string(entry[:n]), "\n"), "\n")
	if len(fields) < 2 {
		return errors.New("the entry has no fields")
	}
	slices.Sort(fields)
	fmt.Println(strings.Join(fields, "\n"))
	return nil
}
