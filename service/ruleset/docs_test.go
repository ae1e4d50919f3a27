package ruleset

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const docsHead = `# The rules, mode by mode

Generated with the goldens in service/ruleset/testdata; ` + "`go test ./service/ruleset -update`" + ` writes it anew, and a test fails when it is stale.

All of it lives in one table, ` + "`inet libvirt_network`" + `, which exists only while a network needs it. An administrator sees it with
` + "`nft list table inet libvirt_network`" + `. Where the kernel can, the table is owned by the service: another program's
` + "`nft flush ruleset`" + ` leaves it alone.

## What all networks share

A forwarded packet is looked up twice, whatever the number of networks: by the bridge it came from (` + "`from_guests`" + `) and by the bridge
it goes to (` + "`to_guests`" + `). Both ends must let it pass, since an accept ends only its own base chain. Each map exists twice: by
interface ID, which follows a bridge through a rename, and by name, which outlives its deletion.

`

// TestDocs keeps docs/rules.md equal to the goldens.
func TestDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString(docsHead)
	section(&b, Text(Base(Interface{Index: 2, Name: "eth0"})))
	for _, s := range scenarios() {
		if s.about != "" {
			fmt.Fprintf(&b, "## %s\n\n%s\n\n", s.title, s.about)
			part, _ := Compile(s.net, s.index)
			section(&b, Text(SetsOf(Base(Interface{}), part), part))
		}
	}
	b.WriteString("## open\n\nNo rules at all, as in libvirt: the administrator's own decide. The bridge is put into a zone only where one is asked for.\n")
	golden(t, filepath.Join("..", "..", "docs", "rules.md"), b.String())
}

func section(b *strings.Builder, text string) {
	fmt.Fprintf(b, "```\n%s```\n\n", text)
}
