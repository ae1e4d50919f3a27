package nftables

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// newNamespace makes an empty network namespace and returns its descriptor.
func newNamespace(t testing.TB) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root: run it with sudo")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	return int(ns)
}

// in returns a command that runs in the namespace.
func in(ns int, command ...string) *exec.Cmd {
	path := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), ns)
	return exec.Command("nsenter", append([]string{path}, command...)...)
}

// run returns what a command in the namespace prints, and fails if it fails.
func run(t testing.TB, ns int, command ...string) string {
	t.Helper()
	out, err := in(ns, command...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// program matches the remark that nft makes of a table's owner. It looks for the
// name in /proc, and now and then does not find it.
var program = regexp.MustCompile(`(?m) # progname .*$`)

// list returns the table as nft lists it, or "" for none.
func list(t testing.TB, ns int) string {
	t.Helper()
	if !strings.Contains(run(t, ns, "nft", "list", "tables"), ruleset.TableName+"\n") {
		return ""
	}
	return program.ReplaceAllString(run(t, ns, "nft", "list", "table", "inet", ruleset.TableName), "")
}

func open(t testing.TB, ns int, change ...func(*Config)) *Backend {
	t.Helper()
	cfg := Config{Owned: true, NetNS: ns}
	for _, c := range change {
		c(&cfg)
	}
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// part returns a NAT network with chains of its own, number n.
func part(n int, names bool) ruleset.Part {
	network := fmt.Sprintf("n%d", n)
	names4 := ruleset.NamesOf(network)
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)
	src, dst := ruleset.Source{Prefix: p}, ruleset.Destination{Prefix: p}
	comment := func(s string) string { return network + ": " + s }
	out := ruleset.Part{
		Network:  network,
		Counters: []string{names4.From, names4.To, names4.RejectedFrom, names4.RejectedTo},
		Chains: []ruleset.Chain{
			{Name: names4.From, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{src}, Counter: names4.From, Action: ruleset.Return{}, Comment: comment("guests may go out")},
				{Matches: []ruleset.Match{ruleset.Family{}}, Counter: names4.RejectedFrom, Action: ruleset.Drop{}, Comment: comment("forged")},
				{Counter: names4.RejectedFrom, Action: ruleset.Goto{Chain: ruleset.ChainRefuse}, Comment: comment("nothing else leaves")},
			}},
			{Name: names4.To, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{dst, ruleset.Replies{}}, Counter: names4.To, Action: ruleset.Accept{}, Comment: comment("replies")},
				{Counter: names4.RejectedTo, Action: ruleset.Goto{Chain: ruleset.ChainRefuse}, Comment: comment("nothing else gets in")},
			}},
			{Name: names4.NAT, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{src, ruleset.Destination{Prefix: p, Not: true}}, Action: ruleset.Goto{Chain: ruleset.ChainMasquerade}, Comment: comment("translated")},
			}},
		},
	}
	add := func(id, name, chain string) {
		out.Elements = append(out.Elements, ruleset.Element{Set: id, Index: 1000 + n, Name: fmt.Sprintf("vb%d", n), Goto: chain, Comment: "network " + network})
		if names {
			out.Elements = append(out.Elements, ruleset.Element{Set: name, Name: fmt.Sprintf("vb%d", n), Goto: chain, Comment: "network " + network})
		}
	}
	add("same_bridge_id", "same_bridge_name", "")
	add("from_id", "from_name", names4.From)
	add("to_id", "to_name", names4.To)
	add("nat_id", "nat_name", names4.NAT)
	add("guests_id", "guests_name", "")
	return out
}

func parts(n int) []ruleset.Part {
	var out []ruleset.Part
	for i := range n {
		out = append(out, part(i, true))
	}
	return out
}

func mustApply(t testing.TB, b *Backend, change ruleset.Change) {
	t.Helper()
	if err := b.applyParts(context.Background(), change); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t testing.TB, b *Backend, parts ...ruleset.Part) syncReport {
	t.Helper()
	report, err := b.syncParts(context.Background(), parts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// Owned reports whether the table is, or with the first network will be,
// protected from other processes.
func (b *Backend) Owned() bool {
	b.writing.Lock()
	defer b.writing.Unlock()
	flags := b.flags
	if len(b.installed) == 0 {
		flags = b.possible
	}
	return flags&nftables.TableFlagOwner != 0
}
