package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// documents generates the documents as make build does, and returns where.
func documents(t *testing.T) string {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	t.Chdir("../../..")
	dir := t.TempDir()
	if err := generate("7.8.9", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestManualPages: neither of the two readers of manual pages has a complaint.
func TestManualPages(t *testing.T) {
	dir := documents(t)
	pages, err := filepath.Glob(filepath.Join(dir, "man/*"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("pages: %v, %v", pages, err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("mandoc (tests/setup.sh installs it) of %s: %v\n%s", name, err, out)
		}
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("man of %s: %v\n%s", name, err, complaints.String())
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"2023-11-14"`) {
			t.Errorf("%s does not have the date of the sources:\n%.200s", name, text)
		}
	}
}

// TestOptionsInManualPages have a line for themselves, and no tab, which would
// be taken for a space.
func TestOptionsInManualPages(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(documents(t), "man/virtfirewallctl-add.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TP\n\\fB--persistent\\fP\nkeep the network over a reboot\n", `.TH "VIRTFIREWALLCTL-ADD" "1" `} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestManualListsTheCommands with what each does.
func TestManualListsTheCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(documents(t), "man/virtfirewallctl.1"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), ".SH COMMANDS\n")
	for _, want := range []string{
		".TP\n\\fBadd\\fP \\fIFILE|-\\fP\nHand a network to the service\n", ".TP\n\\fBdoctor\\fP \\fI[NAME]\\fP\n",
		".TP\n\\fBstatus\\fP\n", ".TP\n\\fBzones remove\\fP\nTake out of firewalld what install added\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
}

// TestCompletionsAreRead by the shells that they are for.
func TestCompletionsAreRead(t *testing.T) {
	dir := filepath.Join(documents(t), "completions")
	for shell, file := range map[string]string{"bash": "virtfirewallctl.bash", "zsh": "_virtfirewallctl", "fish": "virtfirewallctl.fish"} {
		if out, err := exec.Command(shell, "-n", filepath.Join(dir, file)).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s (tests/setup.sh installs it): %v\n%s", shell, err, out)
		}
	}
}
