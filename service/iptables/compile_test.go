package iptables

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// corpus returns the networks that the parser of documents is tested with.
func corpus(t testing.TB) map[string]network.Network {
	t.Helper()
	files, err := filepath.Glob("../network/testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	nets := make(map[string]network.Network)
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		n, err := network.FromXML(doc)
		if err != nil {
			t.Fatal(f, err)
		}
		nets[strings.TrimSuffix(filepath.Base(f), ".xml")] = n
	}
	return nets
}

func TestText(t *testing.T) {
	for name, n := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			got := Text(n)
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// What Text prints is parsed as the same rules: that is how they are recognised in
// the kernel.
func TestRulesAreReadBack(t *testing.T) {
	for name, n := range corpus(t) {
		for _, want := range Compile(n) {
			got, ok := parseRule(want.Chain, xtables.SplitWords(want.spec()))
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Rule) bool { return a == b })); !ok || diff != "" {
				t.Errorf("%s: %s: read %v (-want +got):\n%s", name, want.spec(), ok, diff)
			}
		}
	}
}

// Two networks may have fe80::/64, and then no rule of the one is the other's.
func TestSubnetOfOneLinkIsNotTranslated(t *testing.T) {
	n := corpus(t)["nat-ipv6-masquerade"]
	n.Addresses = append(n.Addresses, netip.MustParsePrefix("fe80::1/64"))
	n.Routes = append(n.Routes, netip.MustParsePrefix("fd00:9::/64"))
	for _, r := range Compile(n) {
		if r.Chain.Table == tableNAT && (network.OfOneLink(r.Source) || network.OfOneLink(r.Dest)) {
			t.Errorf("translated: %s", r.spec())
		}
	}
}
