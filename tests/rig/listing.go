package rig

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Table returns the service's table as the kernel lists it; "" for none.
func (r *Rig) Table() string {
	out, err := r.Run("nft", "list", "table", "inet", "libvirt_network")
	if err != nil && strings.Contains(out, "No such file") {
		return ""
	}
	Must(r.T, err)
	return WithoutProgram(out)
}

// NFT runs nft, and returns what it lists so that it can be compared.
func NFT(h *host.Host, args ...string) string {
	return WithoutProgram(h.Must(append([]string{"nft"}, args...)...))
}

// program matches nft's comment with the name of a table's owner, which nft reads
// from /proc and sometimes does not find.
var program = regexp.MustCompile(`(?m) # progname .*$`)

// WithoutProgram returns a listing without the name of the table's owner.
func WithoutProgram(listing string) string { return program.ReplaceAllString(listing, "") }

// owner matches nft's mark of an owned table.
var owner = regexp.MustCompile(`(?m)^\tflags owner.*\n\n?`)

// WithoutOwner returns a listing without the mark of an owned table.
func WithoutOwner(listing string) string {
	return owner.ReplaceAllString(WithoutProgram(listing), "")
}

// counterValues are what changes by itself in a listing.
var counterValues = regexp.MustCompile(`packets \d+ bytes \d+`)

// WithoutCounters returns a listing in which nothing was counted.
func WithoutCounters(listing string) string {
	return counterValues.ReplaceAllString(listing, "packets 0 bytes 0")
}

// TableLines returns the lines of the table, each element in one, in an order
// that does not depend on the order in which they were made.
func TableLines(h *host.Host) []string {
	out, _ := h.Run("nft", "list", "table", "inet", "libvirt_network")
	lines := strings.Split(strings.NewReplacer("elements = { ", "\n", ",", "\n").Replace(WithoutProgram(out)), "\n")
	for i := range lines {
		lines[i] = strings.Trim(lines[i], " \t}")
	}
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

// Uncounted returns a table's lines without the counters' values, and without what was
// counted earlier: those of a network that a Replace was about to end may go on.
func Uncounted(lines []string) []string {
	out := slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "packets ") || strings.HasSuffix(l, "_earlier {") })
	for i, l := range out {
		out[i] = WithoutCounters(l)
	}
	return out
}

// InTable reports whether the table has something of a network's: each of its elements
// names it.
func InTable(table, network string) bool {
	return strings.Contains(table, fmt.Sprintf("comment %q", "network "+network))
}

// InSet reports the same of one set of the table.
func InSet(table, set, network string) bool {
	_, rest, _ := strings.Cut(table, "set "+set+" {")
	block, _, _ := strings.Cut(rest, "\n\t}")
	return InTable(block, network)
}

// AwaitTable waits until the table is as it was.
func (r *Rig) AwaitTable(when string, whole []string) {
	r.T.Helper()
	var now []string
	if !Await(CallTimeout, func() bool { now = TableLines(r.Host); return slices.Equal(now, whole) }) {
		r.T.Fatalf("%s: the table is not as it was (-before +after):\n%s", when, cmp.Diff(whole, now))
	}
}

// Chains returns the lines of iptables-save, both families, that are libvirt's.
func Chains(h *host.Host) string {
	out := h.Must("sh", "-c", "iptables-save; ip6tables-save")
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, "LIBVIRT_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// OwnRules returns the rules of a backend in the kernel, whatever order tables
// and firewalld's own lines are in, and without counters.
func OwnRules(h *host.Host, backend string) string {
	if backend == "nftables" {
		return strings.Join(Uncounted(TableLines(h)), "\n")
	}
	// Networks' rules stand in the order in which they came.
	lines := slices.Sorted(strings.Lines(Chains(h)))
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "-A") }), "")
}

// SavedRules returns what both iptables-save print, table by table, without
// comments and counters.
func SavedRules(t testing.TB, h *host.Host) string {
	t.Helper()
	var out strings.Builder
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		tables := make(map[string]string)
		table := ""
		for line := range strings.Lines(h.Must(program)) {
			if strings.HasPrefix(line, "*") {
				table = line
			}
			if strings.HasPrefix(line, ":") {
				line, _, _ = strings.Cut(line, " [")
			}
			if !strings.HasPrefix(line, "#") {
				tables[table] += strings.TrimSpace(line) + "\n"
			}
		}
		out.WriteString("# " + program + "\n")
		for _, table := range slices.Sorted(maps.Keys(tables)) {
			out.WriteString(tables[table])
		}
	}
	return out.String()
}
