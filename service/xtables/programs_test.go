package xtables

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]Programs{
		"iptables v1.8.9 (nf_tables)\n": {Variant: VariantNFT, Version: "1.8.9"},
		"iptables v1.8.9 (legacy)\n":    {Variant: VariantLegacy, Version: "1.8.9"},
		"iptables v1.6.1\n":             {Variant: VariantLegacy, Version: "1.6.1"},
		"":                              {Variant: VariantLegacy},
	} {
		if variant, version := parseVersion(out); variant != want.Variant || version != want.Version {
			t.Errorf("%q is %s %q", out, variant, version)
		}
	}
}

func TestName(t *testing.T) {
	for want, got := range map[string]string{
		"iptables": Name(false, VariantNone), "ip6tables-nft": Name(true, VariantNFT), "iptables-legacy": Name(false, VariantLegacy),
	} {
		if got != want {
			t.Errorf("%s in place of %s", got, want)
		}
	}
}

// TestFindVariant: programs have the variant's names, or the plain ones where
// they are of that variant.
func TestFindVariant(t *testing.T) {
	dir := t.TempDir()
	install := func(variant string, names ...string) {
		for _, name := range names {
			script := "#!/bin/sh\necho 'iptables v1.8.9 (" + variant + ")'\n"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir)
	install("nf_tables", "iptables-save", "iptables-restore")
	p, err := FindVariant(context.Background(), false, VariantNFT)
	if err != nil || p.Save != filepath.Join(dir, "iptables-save") || p.Restore != filepath.Join(dir, "iptables-restore") {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := FindVariant(context.Background(), false, VariantLegacy); err == nil || !strings.Contains(err.Error(), "iptables-legacy-save") {
		t.Errorf("%+v, %v", p, err)
	}
	install("legacy", "iptables-legacy-save", "iptables-legacy-restore")
	if p, err := FindVariant(context.Background(), false, VariantLegacy); err != nil || p.Save != filepath.Join(dir, "iptables-legacy-save") {
		t.Errorf("%+v, %v", p, err)
	}
}
