package analysis_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis/analysistest"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// FuzzDecide: whatever other programs have put into iptables, a decision comes to an
// end, and what stops a packet is named.
func FuzzDecide(f *testing.F) {
	files, err := filepath.Glob("testdata/*.v[46]")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("*filter\n:FORWARD DROP [0:0]\n:A - [0:0]\n-A FORWARD -j A\n-A A -j A\n-A A -g A\nCOMMIT\n")
	flows := analysistest.Flows(f)
	f.Fuzz(func(t *testing.T, text string) {
		listing, err := xtables.Parse(text)
		if err != nil {
			return
		}
		for _, ipv6 := range []bool{false, true} {
			tables := analysis.FromIptables(listing, ipv6, "iptables")
			cuts := analysis.Cuts(tables, flows)
			for _, c := range cuts {
				if c.Command == "" {
					t.Errorf("%s is stopped by nobody", c.Flow)
				}
			}
			analysis.Explain(tables, cuts)
		}
	})
}
