package neighbour

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

var update = flag.Bool("update", false, "write testdata/native/*.golden anew")

// TestNativeTables decides beside tables that the real nft has put into the kernel.
func TestNativeTables(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/native/*.nft")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	n, err := network.FromXML([]byte(`<network><name>default</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='virbr0'/>
		<ip address='192.168.122.1' prefix='24'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
		<ip family='ipv6' address='2001:db8:122::1' prefix='64'/></network>`))
	if err != nil {
		t.Fatal(err)
	}
	flows := analysis.Entitled(n, "virbr0", analysis.Uplinks{IPv4: []string{"eth0"}, IPv6: []string{"eth0"}})
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			h := host.New(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.RunInput(string(text), "nft", "-f", "-"); err != nil {
				t.Fatal(err)
			}
			var tables []analysis.Table
			err = h.Do(func() (err error) {
				tables, err = NewForeign(nil, nil).Tables(context.Background())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			got := describe(tables, flows)
			golden := strings.TrimSuffix(file, ".nft") + ".golden"
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

func describe(tables []analysis.Table, flows []analysis.Flow) string {
	var b strings.Builder
	for _, f := range flows {
		for _, p := range f.Packets {
			family := "IPv4"
			if p.IPv6 {
				family = "IPv6"
			}
			a := analysis.Decide(tables, p)
			fmt.Fprintf(&b, "%s, %s, protocol %d: %s", f.Name, family, p.Proto, [...]string{"passes", "unsure", "rejected", "dropped"}[a.Verdict])
			if a.Verdict != analysis.Passes {
				fmt.Fprintf(&b, " by %s", a.At)
			}
			b.WriteByte('\n')
		}
	}
	if cuts := analysis.Cuts(tables, flows); len(cuts) > 0 {
		e := analysis.Explain(tables, cuts)
		fmt.Fprintf(&b, "\n%s\n%s\n", e.Summary, strings.ReplaceAll(e.Remedy, "; ", "\n"))
	}
	return b.String()
}
