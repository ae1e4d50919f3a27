package neighbour

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis/analysistest"
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
			analysistest.Golden(t, strings.TrimSuffix(file, ".nft")+".golden", tables, *update)
		})
	}
}

// TestLargeSetsAreNotRead: a list of thousands of addresses may match or not.
func TestLargeSetsAreNotRead(t *testing.T) {
	t.Parallel()
	for count, want := range map[int]analysis.Verdict{1000: analysis.Passes, maxElements + 1: analysis.Unsure} {
		h := host.New(t)
		var script strings.Builder
		script.WriteString("table ip big {\nset blocked { type ipv4_addr; elements = { ")
		for i := range count {
			fmt.Fprintf(&script, "10.%d.%d.1, ", i/256, i%256)
		}
		script.WriteString(" }\n}\nchain forward { type filter hook forward priority 0; ip saddr @blocked drop; }\n}\n")
		if _, err := h.RunInput(script.String(), "nft", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		var tables []analysis.Table
		err := h.Do(func() (err error) {
			tables, err = NewForeign(nil, nil).Tables(context.Background())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := analysis.Decide(tables, analysistest.Flows(t)[0].Packets[0]); got.Verdict != want {
			t.Errorf("with %d addresses: %d, want %d", count, got.Verdict, want)
		}
	}
}

// TestTablesOfIptablesWithoutItsPrograms are read as nft's, as far as those tell.
func TestTablesOfIptablesWithoutItsPrograms(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	h.Must("iptables-nft", "-P", "FORWARD", "DROP")
	h.Must("sh", "-c", "rm -f /usr/sbin/ip*tables* /usr/sbin/xtables-*")
	var tables []analysis.Table
	err := h.Inside(func() (err error) {
		tables, err = NewForeign(nil, nil).Tables(context.Background())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := analysis.Decide(tables, analysistest.Flows(t)[0].Packets[0]); got.Verdict != analysis.Dropped || got.Command != "nft" {
		t.Errorf("%d by %s", got.Verdict, got.At)
	}
}
