package analysis_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis/analysistest"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// read returns the tables of a listing in testdata; none where there is no file.
func read(t testing.TB, path string, ipv6 bool, command string) []analysis.Table {
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

func parse(t testing.TB, text string, ipv6 bool, command string) []analysis.Table {
	t.Helper()
	listing, err := xtables.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return analysis.FromIptables(listing, ipv6, command)
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
			analysistest.Golden(t, name+".golden", tables, *update)
		})
	}
}
