package analysis

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// guests is a network like libvirt's default one, with IPv6.
func guests(t testing.TB) network.Network {
	t.Helper()
	n, err := network.FromXML([]byte(`<network><name>default</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='virbr0'/>
		<ip address='192.168.122.1' prefix='24'><tftp root='/srv'/><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
		<ip family='ipv6' address='2001:db8:122::1' prefix='64'><dhcp><range start='2001:db8:122::2' end='2001:db8:122::ff'/></dhcp></ip></network>`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// read returns the tables of a listing in testdata; none where there is no file.
func read(t testing.TB, path string, ipv6 bool, command string) []Table {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text), ipv6, command)
}

func parse(t testing.TB, text string, ipv6 bool, command string) []Table {
	t.Helper()
	listing, err := xtables.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return FromIptables(listing, ipv6, command)
}

// TestCorpus decides for a network beside rules as tools make them. Docker's and ufw's
// are saved from real ones.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.v4")
	if err != nil || len(files) < 7 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".v4")
		t.Run(filepath.Base(name), func(t *testing.T) {
			tables := slices.Concat(read(t, name+".v4", false, "iptables"), read(t, name+".v6", true, "ip6tables"))
			got := describe(tables, Entitled(guests(t), "virbr0", Uplinks{[]string{"eth0"}, []string{"eth0"}}))
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// describe writes what becomes of each flow, and what is said of those that are cut.
func describe(tables []Table, flows []Flow) string {
	var b strings.Builder
	for _, f := range flows {
		for _, p := range f.Packets {
			family := "IPv4"
			if p.IPv6 {
				family = "IPv6"
			}
			a := Decide(tables, p)
			fmt.Fprintf(&b, "%s, %s, protocol %d: %s", f.Name, family, p.Proto, [...]string{"passes", "unsure", "rejected", "dropped"}[a.Verdict])
			if a.Verdict != Passes {
				fmt.Fprintf(&b, " by %s", a.At)
			}
			b.WriteByte('\n')
		}
	}
	if cuts := Cuts(tables, flows); len(cuts) > 0 {
		e := Explain(tables, cuts)
		fmt.Fprintf(&b, "\n%s\n%s\n", e.Summary, strings.ReplaceAll(e.Remedy, "; ", "\n"))
	}
	return b.String()
}
