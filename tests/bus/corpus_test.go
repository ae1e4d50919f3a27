package bus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// elementLists are the elements of a set or map, one after the other.
var elementLists = regexp.MustCompile(`(?s)elements = \{ (.*?) \}`)

// blocks returns the counters, sets and chains of a listing of the table, sorted,
// without what changes by itself and without who owns it: nft's own listing and
// the printer's compare equal exactly where they mean the same.
func blocks(listing string) (out []string) {
	listing = rig.WithoutCounters(listing)
	listing = rig.WithoutOwner(listing)
	listing = elementLists.ReplaceAllStringFunc(listing, func(list string) string {
		elements := strings.Split(elementLists.FindStringSubmatch(list)[1], ",")
		for i := range elements {
			elements[i] = strings.TrimSpace(elements[i])
		}
		return "elements = { " + strings.Join(rig.Sorted(elements), ", ") + " }"
	})
	listing = strings.TrimSpace(strings.TrimPrefix(listing, "table inet libvirt_network {\n"))
	for block := range strings.SplitSeq(listing, "\n\t}\n") {
		if block = strings.TrimSpace(block); block != "}" {
			out = append(out, block)
		}
	}
	return rig.Sorted(out)
}

// ofNetwork leaves of a table's blocks what concerns one network: what has its
// elements, and its own chains and counters.
func ofNetwork(all []string) (out []string) {
	for _, block := range all {
		head, _, _ := strings.Cut(block, "\n")
		own := strings.HasPrefix(head, "chain net_") || strings.HasPrefix(head, "counter net_")
		if own || strings.Contains(block, "elements = ") {
			out = append(out, block)
		}
	}
	return out
}

// documents returns the corpus's files that the parser accepts, or refuses.
func documents(t *testing.T, pattern string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(rig.Source("service/network/testdata", pattern))
	if err != nil || len(files) < least {
		t.Fatalf("%d documents: %v", len(files), err)
	}
	return files
}

// TestKernelHoldsWhatThePrinterPrints adds every document of the corpus, before
// and after its bridge is there, and compares what Preview foretold, what
// GetRuleset says and what the kernel lists.
func TestKernelHoldsWhatThePrinterPrints(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Announce("forward-device-missing") // the host has none of the documents' devices
	for _, file := range documents(t, "*.xml", 40) {
		doc, err := os.ReadFile(file)
		rig.Must(t, err)
		name := filepath.Base(file)
		foretold(r, name+" waiting", string(doc))
		bridge := bridgeOf(t, string(doc))
		r.Bridge(bridge)
		foretold(r, name+" active", string(doc))
		r.Must("ip", "link", "del", bridge)
	}
	r.Until("checksum help for DHCP is gone", func() bool {
		return !strings.Contains(r.Must("nft", "list", "ruleset"), "virbr")
	})
}

// foretold previews, adds and removes one document.
func foretold(r *rig.Rig, when, doc string) {
	r.T.Helper()
	before := r.Everything()
	var preview, rules, active string
	r.OK(r.Manager("Preview", doc, "nftables"), &preview)
	r.OK(r.Manager("Preview", doc, ""), &active)
	if preview != active {
		r.T.Errorf("%s: Preview of the active backend differs:\n%s", when, cmp.Diff(preview, active))
	}
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		r.T.Errorf("%s: Preview changed something (-before +after):\n%s", when, diff)
	}
	r.OK(r.AddXML(doc))
	name := onlyNetwork(r)
	r.OK(r.Network(name, "GetRuleset"), &rules)
	table := r.Table()
	if r.Property(name, "ForwardMode") == "open" {
		if table != "" || !strings.Contains(preview, "open") || !strings.Contains(rules, "no rules") {
			r.T.Errorf("%s: an open network has a table\n%s or is not said to have none:\n%s%s", when, table, preview, rules)
		}
	} else {
		if diff := cmp.Diff(blocks(preview), blocks(table)); diff != "" {
			r.T.Errorf("%s: Preview and the kernel differ (-preview +kernel):\n%s", when, diff)
		}
		kernel := ofNetwork(blocks(table))
		if diff := cmp.Diff(blocks(rules), kernel); diff != "" {
			r.T.Errorf("%s: GetRuleset and the kernel differ (-printer +kernel):\n%s", when, diff)
		}
	}
	r.OK(r.Manager("RemoveNetwork", name, rig.Opts()))
	after := r.Everything()
	after["sysctls"] = before["sysctls"] // forwarding stays on
	if diff := cmp.Diff(before, after); diff != "" {
		r.T.Errorf("%s: adding and removing left something (-before +after):\n%s", when, diff)
	}
}

// bridgeOf returns the bridge's name in a document.
func bridgeOf(t testing.TB, doc string) string {
	t.Helper()
	n, err := network.FromXML([]byte(doc))
	rig.Must(t, err)
	return n.Bridge
}

// TestRefusedDocumentsChangeNothing sends every document that the parser
// refuses and a D-Bus string can carry.
func TestRefusedDocumentsChangeNothing(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	before := r.Everything()
	sent := 0
	for _, file := range documents(t, "invalid/*.xml", 140) {
		doc, err := os.ReadFile(file)
		rig.Must(t, err)
		if !utf8.Valid(doc) || strings.ContainsRune(string(doc), 0) {
			continue // godbus does not send it; package dbus is tested with such bytes
		}
		sent++
		why, err := os.ReadFile(strings.TrimSuffix(file, ".xml") + ".golden")
		rig.Must(t, err)
		for _, call := range []*godbus.Call{
			r.AddXML(string(doc)), r.AddXML(string(doc), "Persistent", true, "Replace", true), r.Manager("Preview", string(doc), ""),
		} {
			var e godbus.Error
			kinds := []string{rig.ErrorPrefix + "InvalidArgument", rig.ErrorPrefix + "LimitExceeded", notSupported}
			if !errors.As(call.Err, &e) || !slices.Contains(kinds, e.Name) || strings.TrimSpace(fmt.Sprint(e.Body[0])) != strings.TrimSpace(string(why)) {
				t.Errorf("%s: %s gave %v\nwant %s", filepath.Base(file), call.Method, call.Err, why)
			}
		}
	}
	if sent < 130 {
		t.Errorf("only %d documents were sent", sent)
	}
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		t.Errorf("refused documents changed something (-before +after):\n%s", diff)
	}
}
