package host

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	hosts "github.com/virtfirewalld/virtfirewalld/tests/host"
)

// variants are the two iptables that a host may have as "iptables".
var variants = []string{"nft", "legacy"}

// withIptables makes a host whose PATH has one variant of iptables.
func withIptables(t *testing.T, variant string) *hosts.Host {
	t.Helper()
	h := hosts.New(t)
	h.Must("update-alternatives", "--set", "iptables", "/usr/sbin/iptables-"+variant)
	return h
}

// saved returns the mangle table without what changes by itself: comments with the
// time, and counters.
func saved(t *testing.T, h *hosts.Host) string {
	t.Helper()
	var kept []string
	for line := range strings.Lines(h.Must("iptables-save", "-t", "mangle")) {
		if !strings.HasPrefix(line, "#") {
			line, _, _ = strings.Cut(line, " [")
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return strings.Join(kept, "\n")
}

// fill runs Fill inside a host, for bridges with their networks.
func fill(t *testing.T, h *hosts.Host, c *Checksums, bridges map[string]string) {
	t.Helper()
	served := make(map[string]DHCP)
	for bridge, network := range bridges {
		served[bridge] = DHCP{Network: network}
	}
	if err := h.Inside(func() error { return c.Fill(context.Background(), served) }); err != nil {
		t.Fatal(err)
	}
}

// strict fails the test for any log line. It uses iptables also on kernels that have
// the tc action.
func strict(t *testing.T) *Checksums {
	return withoutCsum(NewChecksums(slog.New(slog.NewTextHandler(failing{t}, nil))))
}

func withoutCsum(c *Checksums) *Checksums {
	c.tc.probed = true
	return c
}

// failing fails the test at every log line.
type failing struct{ t *testing.T }

func (f failing) Write(line []byte) (int, error) {
	f.t.Errorf("logged: %s", line)
	return len(line), nil
}

func rule(bridge, network string) string {
	return fmt.Sprintf(`-A VIRTFW_DHCP -o %s -p udp -m udp --dport 68 -m comment --comment "virtfirewalld: network %s" -j CHECKSUM --checksum-fill`, bridge, network)
}

const jump = `-A POSTROUTING -p udp -m udp --dport 68 -m comment --comment "virtfirewalld: DHCP checksums" -j VIRTFW_DHCP`

func others(h *hosts.Host) {
	h.Must("iptables", "-t", "mangle", "-N", "OTHERS")
	h.Must("iptables", "-t", "mangle", "-A", "OTHERS", "-m", "comment", "--comment", `it's "theirs" \ $x`, "-j", "RETURN")
	h.Must("iptables", "-t", "mangle", "-A", "POSTROUTING", "-o", "virbr0", "-p", "udp", "--dport", "68", "-j", "CHECKSUM", "--checksum-fill")
	h.Must("iptables", "-t", "mangle", "-A", "PREROUTING", "-j", "OTHERS")
}

func TestRulesComeAndGo(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			h := withIptables(t, variant)
			others(h)
			before := saved(t, h)
			c := strict(t)
			fill(t, h, c, nil)
			if diff := cmp.Diff(before, saved(t, h)); diff != "" {
				t.Fatal("no bridges, and yet (-before +after):\n", diff)
			}

			fill(t, h, c, map[string]string{"virbr0": "default", "virbr1": "two words"})
			with := saved(t, h)
			theirs := strings.Join(without(with, "VIRTFW"), "\n")
			if diff := cmp.Diff(before, theirs); diff != "" {
				t.Error("others' rules (-before +after):\n", diff)
			}
			want := []string{":VIRTFW_DHCP -", jump, rule("virbr0", "default"), rule("virbr1", "two words")}
			if diff := cmp.Diff(want, only(with, "VIRTFW")); diff != "" {
				t.Error("our rules (-want +got):\n", diff)
			}

			// A restart of the service forgets what was, and makes nothing twice.
			c = strict(t)
			fill(t, h, c, map[string]string{"virbr1": "two words"})
			want = []string{":VIRTFW_DHCP -", jump, rule("virbr1", "two words")}
			if diff := cmp.Diff(want, only(saved(t, h), "VIRTFW")); diff != "" {
				t.Error("after a restart (-want +got):\n", diff)
			}

			c = strict(t)
			fill(t, h, c, nil)
			if diff := cmp.Diff(before, saved(t, h)); diff != "" {
				t.Error("after the last bridge (-before +after):\n", diff)
			}
		})
	}
}

func without(text, part string) []string { return pick(text, part, false) }
func only(text, part string) []string    { return pick(text, part, true) }

func pick(text, part string, with bool) []string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, part) == with {
			kept = append(kept, line)
		}
	}
	return kept
}

func TestRulesComeBack(t *testing.T) {
	damage := map[string][][]string{
		"flush of the table":      {{"-F"}},
		"flush of the chain":      {{"-F", "VIRTFW_DHCP"}},
		"flush and deletion":      {{"-F"}, {"-X"}},
		"the jump is gone":        {{"-D", "POSTROUTING", "1"}},
		"the jump is there twice": {{"-A", "POSTROUTING", "-p", "udp", "-j", "VIRTFW_DHCP"}},
		"one rule is gone":        {{"-D", "VIRTFW_DHCP", "1"}},
		"a rule of somebody else": {{"-I", "VIRTFW_DHCP", "-j", "RETURN"}},
	}
	bridges := map[string]string{"virbr0": "default", "virbr1": "lab"}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			h := withIptables(t, variant)
			c := strict(t)
			fill(t, h, c, bridges)
			want := saved(t, h)
			for name, commands := range damage {
				for _, args := range commands {
					h.Must(append([]string{"iptables", "-t", "mangle"}, args...)...)
				}
				if saved(t, h) == want {
					t.Errorf("%s: no damage done", name)
				}
				fill(t, h, c, bridges)
				if diff := cmp.Diff(want, saved(t, h)); diff != "" {
					t.Errorf("%s: (-before +after)\n%s", name, diff)
				}
			}
		})
	}
}

func TestFillIsCheapWhenAllIsRight(t *testing.T) {
	h := withIptables(t, "nft")
	c := strict(t)
	bridges := map[string]string{"virbr0": "default"}
	fill(t, h, c, bridges)
	// A write would set the counters back to zero.
	h.Must("iptables", "-t", "mangle", "-R", "VIRTFW_DHCP", "1", "-o", "virbr0", "-p", "udp", "--dport", "68",
		"-m", "comment", "--comment", "virtfirewalld: network default", "-j", "CHECKSUM", "--checksum-fill", "-c", "7", "700")
	fill(t, h, c, bridges)
	if got := h.Must("iptables-save", "-c", "-t", "mangle"); !strings.Contains(got, "[7:700] -A VIRTFW_DHCP -o virbr0") {
		t.Error("the rules were written again:\n", got)
	}
}

// A bridge more or less leaves the rules of the others alone, with their counts.
func TestFillWritesWhatDiffers(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			h := withIptables(t, variant)
			c := strict(t)
			fill(t, h, c, map[string]string{"virbr0": "default", "virbr1": "lab"})
			h.Must("iptables", "-t", "mangle", "-Z", "VIRTFW_DHCP")
			h.Must("iptables", "-t", "mangle", "-R", "VIRTFW_DHCP", "1", "-o", "virbr0", "-p", "udp", "--dport", "68",
				"-m", "comment", "--comment", "virtfirewalld: network default", "-j", "CHECKSUM", "--checksum-fill", "-c", "7", "700")
			fill(t, h, c, map[string]string{"virbr0": "default", "virbr2": "new", "virbr3": "newer"})
			fill(t, h, c, map[string]string{"virbr0": "default", "virbr2": "renamed"})
			want := []string{":VIRTFW_DHCP -", jump, rule("virbr0", "default"), rule("virbr2", "renamed")}
			if diff := cmp.Diff(want, only(saved(t, h), "VIRTFW")); diff != "" {
				t.Error("our rules (-want +got):\n", diff)
			}
			if got := h.Must("iptables-save", "-c", "-t", "mangle"); !strings.Contains(got, "[7:700] -A VIRTFW_DHCP -o virbr0") {
				t.Error("the rules that stay were written again:\n", got)
			}
		})
	}
}

func TestLegacyTableIsNotMadeByLooking(t *testing.T) {
	h := withIptables(t, "legacy")
	fill(t, h, strict(t), nil)
	if got, _ := h.Run("cat", "/proc/net/ip_tables_names"); strings.Contains(got, "mangle") {
		t.Errorf("tables: %q", got)
	}
	// The same look is not blind.
	h.Must("iptables", "-t", "mangle", "-N", "VIRTFW_DHCP")
	fill(t, h, strict(t), nil)
	if got := h.Must("iptables", "-t", "mangle", "-S"); strings.Contains(got, "VIRTFW") {
		t.Error("left behind:\n", got)
	}
}

func TestHostileNames(t *testing.T) {
	h := withIptables(t, "nft")
	var log strings.Builder
	c := withoutCsum(NewChecksums(slog.New(slog.NewTextHandler(&log, nil))))
	bridges := map[string]string{
		"virbr0":   `a" -j DROP` + "\nCOMMIT\n*filter\n-P INPUT DROP\n" + `# '$(id)\`,
		"virbr-1.": strings.Repeat("ü", 64),
		"-j":       "dash", "!": "negation", "a b": "space", "a'b": "quote", "br+": "wildcard", "vür": "letter",
	}
	fill(t, h, c, bridges)
	fill(t, h, c, bridges)
	want := []string{
		":VIRTFW_DHCP -", jump,
		rule("virbr-1.", strings.Repeat("_", 64)),
		rule("virbr0", "a_ -j DROP_COMMIT__filter_-P INPUT DROP__ ___id__"),
	}
	if diff := cmp.Diff(want, only(saved(t, h), "VIRTFW")); diff != "" {
		t.Error("rules (-want +got):\n", diff)
	}
	for _, name := range []string{"-j", "!", "a b", "a'b", "br+", "vür"} {
		if n := strings.Count(log.String(), fmt.Sprintf("bridge=%s ", quoted(name))); n != 1 {
			t.Errorf("bridge %q was reported %d times:\n%s", name, n, log.String())
		}
	}
}

// quoted returns a value as the log's text has it.
func quoted(name string) string {
	if strings.Contains(name, " ") {
		return fmt.Sprintf("%q", name)
	}
	return name
}

// Kernels without the CHECKSUM target, and hosts without iptables, are simulated by
// scripts in place of the programs.
func TestHostWithoutHelp(t *testing.T) {
	for _, c := range []struct {
		name, iptables, restore string
		want                    string // in the error, "" for none
		logged                  bool
	}{
		{name: "no iptables", logged: true},
		{name: "no target", iptables: "exit 0", restore: "echo 'Extension CHECKSUM revision 0 not supported' >&2; exit 2", logged: true},
		{name: "no table", iptables: "echo 'Table does not exist' >&2; exit 3", restore: "exit 3", logged: true},
		{name: "lock is held", iptables: "exit 0", restore: "echo 'Another app holds the lock' >&2; exit 4", want: "Another app holds the lock"},
		{name: "a rule does not stay", iptables: "exit 0", restore: "exit 0", want: "are 0 in place of 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hosts.New(t) // tc works, or not, as on this machine
			dir := t.TempDir()
			for name, script := range map[string]string{"iptables": c.iptables, "iptables-restore": c.restore} {
				if script != "" {
					script = "#!/bin/sh\n" + script + "\n"
					if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Setenv("PATH", dir)
			var log strings.Builder
			sums := withoutCsum(NewChecksums(slog.New(slog.NewTextHandler(&log, nil))))
			sums.tc.probed = true
			for range 2 {
				err := h.Do(func() error { return sums.Fill(context.Background(), map[string]DHCP{"virbr0": {Network: "default"}}) })
				if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
					t.Errorf("error is %v, want %q", err, c.want)
				}
			}
			if lines := strings.Count(log.String(), "\n"); c.logged && lines != 1 || !c.logged && lines != 0 {
				t.Errorf("logged:\n%s", log.String())
			}
		})
	}
}
