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

## How to read it

Rules never change, but for the two that name the uplink: **what a network may do are its elements in sets**, and each element
says in a comment whose it is. A packet costs the same with 1 network and with 1,000, and so does a change.

| set | its elements are | what it says of them |
|---|---|---|
| ` + "`" + `guests` + "`" + ` | bridges | they belong to networks: what the sets below do not allow is refused |
| ` + "`" + `may_leave` + "`" + ` | bridge and subnet | guests of it may go out, and how many packets have |
| ` + "`" + `replies` + "`" + ` | bridge and subnet | replies reach guests of it |
| ` + "`" + `anyone` + "`" + ` | bridge and subnet | anyone reaches guests of it: routed subnets |
| ` + "`" + `isolated` + "`" + ` | bridge and subnet | its guests reach nobody else, and are told so |
| ` + "`" + `translated` + "`" + ` | bridge and subnet | its guests go out under another address; what cannot be translated does not go out |
| ` + "`" + `masqueraded` + "`" + ` | bridge and subnet | its guests go out under the host's address |
| ` + "`" + `untranslated` + "`" + ` | bridge and two subnets | from one to the other nothing is translated |
| ` + "`" + `families` + "`" + ` | bridge and IPv4 or IPv6 | other sources of that family are forged, and dropped |
| ` + "`" + `refused_from` + "`" + `, ` + "`" + `refused_to` + "`" + ` | bridges | how many packets were refused |
| ` + "`" + `same_bridge` + "`" + ` | bridge and itself | what leaves by the bridge it came from is let alone |
| ` + "`" + `bystanders` + "`" + ` | other interfaces | no network can have them; saves a packet look-ups, and decides nothing |
| ` + "`" + `from` + "`" + `, ` + "`" + `to` + "`" + `, ` + "`" + `nat` + "`" + ` | bridges, each with a chain | networks that have chains of their own |

` + "`" + `4` + "`" + ` and ` + "`" + `6` + "`" + ` in a name are the family. Each set exists twice: ` + "`" + `_id` + "`" + `, by the bridge's interface ID, which follows it through a
rename, and ` + "`" + `_name` + "`" + `, which outlives its deletion. Subnets are a /24 or a /64. A network with subnets of other lengths, with
more than two of a family, or that leaves by chosen devices alone, has chains of its own, named after it; one with an address pool or ports of its own has one for
its translation.

A forwarded packet begins in ` + "`" + `forward_guests` + "`" + `, before iptables' rules see it. **Both ends must let it pass**: the source's side
(` + "`" + `source` + "`" + `) returns what may go, and the destination's side (` + "`" + `destination` + "`" + `) decides then. To and from the uplink there is one side,
and the usual packet is done with after one look-up.

A counter ` + "`" + `net_NETWORK_from_earlier` + "`" + ` or the like holds what elements had counted that are gone, so that totals never go back.

## What all networks share

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
