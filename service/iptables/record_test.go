package iptables

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRecordsThatCannotBeUsed: they are renamed and reported; the others are used,
// and nothing waits.
func TestRecordsThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("good.rules", `{"Network":"n"}`)
	half := write("half.rules.new", `{`)
	bad := []string{write("empty.rules", ""), write("cut.rules", `{"Net`), write("text.rules", "x"), write("mode.rules", `{"Network":"m"}`), filepath.Join(dir, "pipe.rules")}
	if err := os.Chmod(bad[3], 0o666); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(bad[4], 0o600); err != nil {
		t.Fatal(err)
	}
	recorded, broken, err := readRecords(dir)
	if _, there := recorded["n"]; err != nil || !there || len(recorded) != 1 || len(broken) != len(bad) {
		t.Fatalf("got %v, %v, %v", recorded, broken, err)
	}
	for _, path := range bad {
		if _, err := os.Lstat(path + ".broken"); err != nil {
			t.Error(err)
		}
		if all := broken[0].Error() + broken[1].Error() + broken[2].Error() + broken[3].Error() + broken[4].Error(); !strings.Contains(all, path) {
			t.Errorf("no error names %s: %s", path, all)
		}
	}
	if _, err := os.Lstat(half); err == nil {
		t.Error("what a killed run left half written is still there")
	}
	if _, broken, err := readRecords(dir); err != nil || len(broken) > 0 {
		t.Error("the second time:", broken, err)
	}
}
