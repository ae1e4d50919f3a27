package network

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// corpus returns the documents of a folder by name, without .xml.
func corpus(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents in %s: %v", dir, err)
	}
	docs := make(map[string][]byte)
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		docs[strings.TrimSuffix(filepath.Base(f), ".xml")] = doc
	}
	return docs
}

func golden(t *testing.T, path, got string) {
	t.Helper()
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
}

// dump returns a network as clients see it.
func dump(t *testing.T, n Network) string {
	t.Helper()
	s := n.Settings()
	s["Name"], s["UUID"] = n.Name, n.UUID
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

func TestFromXML(t *testing.T) {
	for name, doc := range corpus(t, "testdata") {
		t.Run(name, func(t *testing.T) {
			n, err := FromXML(doc)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", name+".golden"), dump(t, n))
			roundTrip(t, n)
		})
	}
}

// roundTrip fails unless a network is the same after conversion to each of its
// forms and back.
func roundTrip(t testing.TB, n Network) {
	t.Helper()
	if err := n.Validate(); err != nil {
		t.Fatalf("a network that was read is not valid: %v", err)
	}
	doc, err := n.XML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromXML(doc)
	if err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	if diff := cmp.Diff(n, again, cmpAddr); diff != "" || !n.Equal(again) {
		t.Fatalf("not the same through XML (-want +got):\n%s\n%s", diff, doc)
	}
	set, err := FromSettings(n.Name, n.Settings())
	if err != nil {
		t.Fatal(err)
	}
	set.UUID = n.UUID
	if diff := cmp.Diff(n, set, cmpAddr); diff != "" || !n.Equal(set) {
		t.Fatalf("not the same through settings (-want +got):\n%s", diff)
	}
}

func TestFromXMLRefuses(t *testing.T) {
	for name, doc := range corpus(t, "testdata/invalid") {
		t.Run(name, func(t *testing.T) {
			_, err := FromXML(doc)
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrLimit) {
				t.Errorf("%T is neither sort of error", err)
			}
			checkMessage(t, err)
			golden(t, filepath.Join("testdata/invalid", name+".golden"), err.Error()+"\n")
		})
	}
}

// checkMessage checks that every bus and log line can carry a message.
func checkMessage(t testing.TB, err error) {
	t.Helper()
	msg := err.Error()
	if len(msg) > 500 || strings.ToValidUTF8(msg, "") != msg || strings.ContainsAny(msg, "\x00\n\r") {
		t.Errorf("not one short line of UTF-8: %q", msg)
	}
}

func TestLiveDumpEqualsDefinition(t *testing.T) {
	docs := corpus(t, "testdata")
	a, errA := FromXML(docs["nat-default"])
	b, errB := FromXML(docs["nat-live-dump"])
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if !a.Equal(b) || cmp.Diff(a, b, cmpAddr) != "" {
		t.Error(cmp.Diff(a, b, cmpAddr))
	}
}

func TestDerivedUUID(t *testing.T) {
	doc := "<network><name>%s</name><bridge name='virbr0'/></network>"
	var ids []string
	for _, name := range []string{"default", "default", "other"} {
		n, err := FromXML([]byte(strings.Replace(doc, "%s", name, 1)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, n.UUID)
	}
	// Stored networks and clients keep it, so it must never change.
	want := []string{"b7ffc4be-5d5b-588f-bcbd-c3c5ab88535e", "", ""}
	want[1] = want[0]
	if ids[0] != want[0] || ids[1] != want[1] || ids[2] == ids[0] {
		t.Errorf("UUIDs are %q", ids)
	}
}

// TestLargeDocuments parses documents that take a careless parser much time.
func TestLargeDocuments(t *testing.T) {
	wrap := func(s string) string {
		return "<network><name>n</name><bridge name='virbr0'/>" + s + "</network>"
	}
	var attrs strings.Builder
	for i := range 100_000 {
		attrs.WriteString(" a" + strings.Repeat("b", i%5) + string(rune('a'+i%26)) + "='1'")
	}
	docs := map[string]struct {
		doc  string
		want error // nil: accepted
	}{
		"over a MiB":               {wrap(strings.Repeat(" ", MaxXMLBytes)), ErrLimit},
		"just a MiB":               {wrap(strings.Repeat(" ", MaxXMLBytes-len(wrap("")))), nil},
		"attributes, ignored":      {wrap("<mtu" + attrs.String() + "/>"), nil},
		"attributes of the root":   {"<network" + attrs.String() + "><name>n</name><bridge name='b'/></network>", nil},
		"attributes of forward":    {wrap("<forward" + attrs.String() + "/>"), ErrInvalid},
		"one attribute repeated":   {wrap("<ip" + strings.Repeat(" address='1'", 80_000) + "/>"), ErrInvalid},
		"ignored elements":         {wrap(strings.Repeat("<x/>", 200_000)), nil},
		"nested elements":          {wrap(strings.Repeat("<x>", 200_000)), ErrLimit},
		"nested in metadata":       {wrap("<metadata>" + strings.Repeat("<x>", 200_000)), ErrLimit},
		"nested in own":            {wrap("<metadata><network xmlns='" + MetadataNamespace + "'>" + strings.Repeat("<forward>", 90_000)), ErrInvalid},
		"addresses":                {wrap(strings.Repeat("<ip address='10.0.0.1' prefix='24'/>", 25_000)), ErrLimit},
		"routes":                   {wrap(strings.Repeat("<route/>", 100_000)), ErrLimit},
		"devices":                  {wrap("<forward>" + strings.Repeat("<interface dev='e'/>", 50_000) + "</forward>"), ErrLimit},
		"NAT ranges":               {wrap("<forward><nat>" + strings.Repeat("<address/>", 90_000) + "</nat></forward>"), ErrInvalid},
		"DHCP hosts":               {wrap("<ip address='10.0.0.1'><dhcp>" + strings.Repeat("<host/>", 140_000) + "</dhcp></ip>"), nil},
		"namespaces":               {wrap(strings.Repeat("<x xmlns:a='urn:b'/>", 50_000)), nil},
		"references":               {wrap("<x>" + strings.Repeat("&amp;", 200_000) + "</x>"), nil},
		"comments":                 {wrap(strings.Repeat("<!---->", 140_000)), nil},
		"a name":                   {wrap("<name>" + strings.Repeat("n", 1_000_000) + "</name>"), ErrInvalid},
		"an address":               {wrap("<ip address='" + strings.Repeat("1", 1_000_000) + "'/>"), ErrInvalid},
		"an element's name":        {wrap("<forward><" + strings.Repeat("n", 1_000_000) + "/></forward>"), ErrInvalid},
		"an element's closing tag": {wrap("<x></" + strings.Repeat("n", 1_000_000) + ">"), ErrInvalid},
	}
	for name, d := range docs {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := FromXML([]byte(d.doc))
			// A walk that is quadratic in the document would take minutes; this
			// is no benchmark and leaves room for a busy machine.
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			if !errors.Is(err, d.want) {
				t.Errorf("error is %v, want %v", err, d.want)
			}
			if err != nil {
				checkMessage(t, err)
			}
		})
	}
}

func TestMetadataNamespaceTricks(t *testing.T) {
	// A prefix named like the namespace, and one bound to it only by another name.
	doc := `<network xmlns:a="b" xmlns:b="` + MetadataNamespace + `"><name>n</name><bridge name="virbr0"/>` +
		`<metadata><a:network><a:nonsense/></a:network><b:network><b:route address="10.0.0.0" prefix="8"/></b:network></metadata>` +
		`<a:forward mode="bridge"/><b:bridge name="other"/></network>`
	n, err := FromXML([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if n.Bridge != "virbr0" || n.Mode != ModeIsolated || len(n.Routes) != 1 {
		t.Errorf("read %+v", n)
	}
}

func TestByteOrderMark(t *testing.T) {
	doc := "\xef\xbb\xbf<network><name>n</name><bridge name='virbr0'/></network>"
	if _, err := FromXML([]byte(doc)); err != nil {
		t.Error(err)
	}
}

func BenchmarkFromXML(b *testing.B) {
	doc := corpus(b, "testdata")["nat-default"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromXML(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzFromXML(f *testing.F) {
	for _, dir := range []string{"testdata", "testdata/invalid"} {
		docs := corpus(f, dir)
		for _, doc := range docs {
			f.Add(doc)
		}
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		n, err := FromXML(doc)
		if err != nil {
			checkMessage(t, err)
			return
		}
		roundTrip(t, n)
	})
}
