package rig

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Update is the flag that has goldens written instead of compared.
var Update = flag.Bool("update", false, "write the goldens again")

// Must fails the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Same checks that something is as expected, and prints the difference.
func Same(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// WantText checks that a text has these parts.
func WantText(t testing.TB, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// HasAll reports whether a text has these parts.
func HasAll(text string, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, w) })
}

// Sorted sorts a list, and returns it.
func Sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// At parses an address with a port.
func At(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// Golden compares a text with a file that a person can review.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	if *Update {
		Must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	Must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; look at it, then renew it with -update (-want +got):\n%s", file, diff)
	}
}

// GoldenLines compares lines that have no order with a file.
func GoldenLines(t testing.TB, file string, lines map[string]string) {
	t.Helper()
	var all []string
	for line, fate := range lines {
		all = append(all, line+"  "+fate+"\n")
	}
	Golden(t, file, strings.Join(Sorted(all), ""))
}
