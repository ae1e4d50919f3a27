package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const docsDir = "../../docs"

var (
	ownElement = regexp.MustCompile(`(?s)<(\w+):network xmlns:\w+=['"]` + regexp.QuoteMeta(MetadataNamespace) + `['"]\s*(/>|>.*</\w+:network>)`)
	example    = regexp.MustCompile("(?s)```xml\n(.*?)```")
)

// examples returns the documents of the page on metadata.
func examples(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(docsDir, "metadata.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := example.FindAllStringSubmatch(string(page), -1)
	if len(found) < 3 {
		t.Fatalf("%d examples in the page, expected at least 3", len(found))
	}
	out := make(map[string]string)
	for i, m := range found {
		out[fmt.Sprintf("example %d of the page", i+1)] = m[1]
	}
	return out
}

func TestMetadataExamples(t *testing.T) {
	for name, doc := range examples(t) {
		n, err := FromXML([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		roundTrip(t, n)
	}
}

// TestMetadataSchema checks that the shipped schema accepts what FromXML does.
func TestMetadataSchema(t *testing.T) {
	accept, refuse := make(map[string]string), make(map[string]string)
	for name, doc := range examples(t) {
		accept[name] = doc
	}
	for name, doc := range corpus(t, "testdata") {
		if strings.HasPrefix(name, "own-") {
			accept[name] = string(doc)
		}
		n, err := FromXML(doc)
		if err != nil {
			t.Fatal(err)
		}
		written, err := n.XML()
		if err != nil {
			t.Fatal(err)
		}
		accept[name+" written"] = string(written)
	}
	for name, doc := range corpus(t, "testdata/invalid") {
		switch name {
		case "own-unknown-element", "own-unknown-attribute", "own-foreign-element", "own-text", "own-mode-missing",
			"own-mode-bridge", "own-isolated-dev", "own-pool-ipv4", "own-route-no-prefix", "own-serve-maybe":
			refuse[name] = string(doc)
		}
	}
	if len(refuse) != 10 {
		t.Fatalf("%d invalid elements, expected 10", len(refuse))
	}
	for name, valid := range validate(t, accept) {
		if !valid {
			t.Errorf("the schema refuses %s", name)
		}
	}
	for name, valid := range validate(t, refuse) {
		if valid {
			t.Errorf("the schema accepts %s", name)
		}
	}
}

// validate runs the documents' own elements through the schema, in one run of
// xmllint.
func validate(t *testing.T, docs map[string]string) map[string]bool {
	t.Helper()
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Fatal("xmllint checks the schema: install libxml2-utils")
	}
	dir := t.TempDir()
	args := []string{"--noout", "--relaxng", filepath.Join(docsDir, "network-metadata.rng")}
	files := make(map[string]string)
	for name, doc := range docs {
		if own := ownElement.FindString(doc); own != "" {
			file := filepath.Join(dir, Escape(name)+".xml")
			if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
				t.Fatal(err)
			}
			files[name] = file
			args = append(args, file)
		}
	}
	// Its exit code is that of the last document; what counts is the line for each.
	out, _ := exec.CommandContext(t.Context(), xmllint, args...).CombinedOutput()
	result := make(map[string]bool)
	for name, file := range files {
		result[name] = strings.Contains(string(out), file+" validates\n")
		if !result[name] && !strings.Contains(string(out), file+" fails to validate\n") {
			t.Fatalf("no verdict on %s:\n%s", name, out)
		}
	}
	return result
}
