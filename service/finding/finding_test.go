package finding

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/findings.md")

const document = "../../docs/findings.md"

func TestKindsAreWhole(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9-]*[a-z0-9]$`)
	seen := map[ID]bool{}
	for _, k := range Kinds() {
		if !name.MatchString(string(k.ID)) || seen[k.ID] || k.About == "" {
			t.Errorf("kind %q is there twice, has no description or a name of another form", k.ID)
		}
		seen[k.ID] = true
		if rank(severities, k.Severity) < 0 || rank(effects, k.Effect) < 0 {
			t.Errorf("kind %q has severity %q and effect %q", k.ID, k.Severity, k.Effect)
		}
		if k.Effect == Failed && k.Severity != Error {
			t.Errorf("kind %q fails a network and is no error", k.ID)
		}
	}
}

func TestWorstFindingSpeaksForTheState(t *testing.T) {
	known, forwarding, none := Finding{ID: BridgeRenamed}, Finding{ID: ForwardingOff}, Finding{ID: NetworksConflict}
	for _, c := range []struct {
		fs   []Finding
		want Finding
		ok   bool
	}{
		{nil, Finding{}, false},
		{[]Finding{known}, Finding{}, false},
		{[]Finding{known, forwarding}, forwarding, true},
		{[]Finding{forwarding, none, known}, none, true},
	} {
		if got, ok := Worst(c.fs); ok != c.ok || got != c.want {
			t.Errorf("of %v: got %v, %v", c.fs, got, ok)
		}
	}
	all := []Finding{known, forwarding, none}
	Sort(all)
	if diff := cmp.Diff([]Finding{none, forwarding, known}, all); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownKindDoesNotLookHarmless(t *testing.T) {
	if f := (Finding{ID: "no-such-kind"}); f.Effect() != Failed || f.Severity() != Error {
		t.Errorf("it has effect %q and severity %q", f.Effect(), f.Severity())
	}
}

// The documentation is the registry as text.
func TestDocumentation(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Findings\n\n")
	b.WriteString("What `virtfirewallctl doctor` and the D-Bus method `Diagnose` report. A network's `StateCode` is the Id of the\n")
	b.WriteString("finding that says most of its State, and `StateReason` says what to do. Made from service/finding by\n")
	b.WriteString("`go test ./service/finding -update`.\n\n")
	b.WriteString("| Id | severity | State | what it is |\n|---|---|---|---|\n")
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.ID, k.Severity, k.Effect, k.About)
	}
	if *update {
		if err := os.WriteFile(document, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(have)); diff != "" {
		t.Errorf("%s is stale; run this test with -update (-want +have):\n%s", document, diff)
	}
}

// TestQuoted: what a Remedy names is one word of a shell, whatever it is.
func TestQuoted(t *testing.T) {
	for name, want := range map[string]string{
		"virbr0": "virbr0", "eth0.7": "eth0.7", "": "''", "a b": "'a b'", "$(id)": "'$(id)'", "it's": `'it'\''s'`, "a;b": "'a;b'",
	} {
		if got := Quoted(name); got != want {
			t.Errorf("%q is quoted as %s, want %s", name, got, want)
		}
	}
}
