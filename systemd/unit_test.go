package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit writes the unit as make install does, next to a program that it starts,
// and returns its path.
func unit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile("virtfirewalld.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "ExecStart=@SBINDIR@/virtfirewalld\n") {
		t.Error("the unit has no place for the program's directory")
	}
	if err := os.WriteFile(filepath.Join(dir, "virtfirewalld"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "virtfirewalld.service")
	text = []byte(strings.ReplaceAll(string(text), "@SBINDIR@", dir))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitIsValid(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit(t)).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestUnitIsConfined checks that the exposure is at most 2.0; it was 1.9 with
// systemd 252.
func TestUnitIsConfined(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit(t)).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func TestTmpfiles(t *testing.T) {
	root := t.TempDir()
	file, err := filepath.Abs("virtfirewalld.tmpfiles.conf")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-tmpfiles", "--create", "--root="+root, file).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(root, "run/xtables.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the lock has mode %v", info.Mode())
	}
}
