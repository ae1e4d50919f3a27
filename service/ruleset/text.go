package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Text prints the table as `nft list table inet libvirt_network` would, in a
// form that `nft -f` reads back: the skeleton, if given, with the networks'
// counters, elements and chains.
func Text(base Skeleton, parts ...Part) string { return Listing{}.Text(base, parts...) }

// Listing is the state of a table in the kernel besides its skeleton and its parts.
type Listing struct {
	Dormant bool
	Notes   []string // what is wrong
	Totals  map[string]Total
}

// Total is what a counter has counted.
type Total struct{ Packets, Bytes uint64 }

// Text prints the table as the function Text does, with the listing's state.
func (l Listing) Text(base Skeleton, parts ...Part) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", TableName)
	if l.Dormant {
		b.WriteString("\tflags dormant # none of these rules is in force: reapply wakes the table\n\n")
	}
	for _, note := range l.Notes {
		b.WriteString("\t# " + note + "\n")
	}
	var blocks []string
	for _, p := range parts {
		for _, c := range p.Counters {
			t := l.Totals[c]
			blocks = append(blocks, fmt.Sprintf("\tcounter %s {\n\t\tpackets %d bytes %d\n\t}\n", c, t.Packets, t.Bytes))
		}
	}
	for _, s := range base.Sets {
		blocks = append(blocks, setText(s, elementsOf(s, parts)))
	}
	for _, c := range base.Chains {
		blocks = append(blocks, chainText(c))
	}
	for _, p := range parts {
		for _, c := range p.Chains {
			blocks = append(blocks, chainText(c))
		}
	}
	b.WriteString(strings.Join(blocks, "\n"))
	b.WriteString("}\n")
	return b.String()
}

// SetsOf returns the sets of base that the parts have elements in: the skeleton to
// print when only the parts matter.
func SetsOf(base Skeleton, parts ...Part) Skeleton {
	used := slices.DeleteFunc(slices.Clone(base.Sets), func(s Set) bool { return len(elementsOf(s, parts)) == 0 })
	return Skeleton{Sets: used}
}

func elementsOf(s Set, parts []Part) []string {
	var out []string
	for _, p := range parts {
		for _, e := range p.Elements {
			if e.Set == s.Name {
				out = append(out, elementText(s, e))
			}
		}
	}
	return out
}

func setText(s Set, elements []string) string {
	kind, keys := "set", make([]string, len(s.Key))
	for i, k := range s.Key {
		keys[i] = string(k)
	}
	typ := strings.Join(keys, " . ")
	if s.Verdicts {
		kind, typ = "map", typ+" : verdict"
	}
	text := fmt.Sprintf("\t%s %s {\n\t\ttype %s\n", kind, s.Name, typ)
	if s.Size > 0 {
		text += fmt.Sprintf("\t\tsize %d\n", s.Size)
	}
	if len(elements) > 0 {
		text += "\t\telements = { " + strings.Join(elements, ",\n\t\t\t     ") + " }\n"
	}
	return text + "\t}\n"
}

// elementText quotes the bridge's name also for indexes, as nft lists them: it
// reads a name back as the index that the interface has then.
func elementText(s Set, e Element) string {
	text := strings.Join(keyText(s, e), " . ")
	if s.Counts != 0 {
		text += fmt.Sprintf(" counter packets %d bytes %d", e.Total.Packets, e.Total.Bytes)
	}
	if e.Comment != "" {
		text += fmt.Sprintf(" comment \"%s\"", e.Comment)
	}
	if s.Verdicts {
		text += " : goto " + e.Goto
	}
	return text
}

func keyText(s Set, e Element) []string {
	fields, addresses := make([]string, len(s.Key)), e.Addresses[:]
	for i, k := range s.Key {
		switch k {
		case KeyIfIndex, KeyIfName:
			fields[i] = fmt.Sprintf("%q", e.Name)
		case KeyIPv4, KeyIPv6:
			fields[i], addresses = addresses[0].String(), addresses[1:]
		case KeyFamily:
			fields[i] = Family{e.IPv6}.word()
		}
	}
	return fields
}

func chainText(c Chain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
	if c.Hook != (Hook{}) {
		fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.Hook.Type, c.Hook.Hook, priorityText(c.Hook.Priority))
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.String() + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// priorityText returns a priority as nft prints it.
func priorityText(p int) string {
	name, base := "filter", priorityFilter
	if p >= prioritySrcNAT {
		name, base = "srcnat", prioritySrcNAT
	}
	switch {
	case p == base:
		return name
	case p < base:
		return fmt.Sprintf("%s - %d", name, base-p)
	}
	return fmt.Sprintf("%s + %d", name, p-base)
}

// String returns the rule in nft syntax.
func (r Rule) String() string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, m.text())
	}
	if r.Counter != "" {
		words = append(words, fmt.Sprintf("counter name %q", r.Counter))
	}
	if r.Action != nil {
		words = append(words, r.Action.verb())
	}
	if r.Comment != "" {
		words = append(words, "comment \""+r.Comment+"\"")
	}
	return strings.Join(words, " ")
}

func (m Family) text() string { return "meta nfproto " + m.word() }

func (m Family) word() string {
	if m.IPv6 {
		return "ipv6"
	}
	return "ipv4"
}

func (m OutDevice) text() string { return fmt.Sprintf("oifname %q", m.Name) }
func (m InDevice) text() string  { return fmt.Sprintf("iifname %q", m.Name) }

func (m Source) text() string { return address("saddr", "", m.Prefix) }

func (m Destination) text() string {
	if m.Not {
		return address("daddr", "!= ", m.Prefix)
	}
	return address("daddr", "", m.Prefix)
}

func (m Protocol) text() string {
	if m.UDP {
		return "meta l4proto udp"
	}
	return "meta l4proto tcp"
}

func (Replies) text() string { return "ct state established,related" }

func (Tracked) text() string { return "ct state established,related,new" }

func (Untracked) text() string { return "ct state invalid,untracked" }

func (m Lookup) text() string {
	var fields []string
	for _, f := range m.Key {
		if f != 0 {
			fields = append(fields, f.text())
		}
	}
	return strings.Join(fields, " . ") + " @" + m.Set
}

func (f Field) text() string {
	return map[Field]string{
		InIndex: "iif", OutIndex: "oif", InName: "iifname", OutName: "oifname", FamilyField: "meta nfproto",
		Source4: "ip saddr & 255.255.255.0", Destination4: "ip daddr & 255.255.255.0",
		Source6: "ip6 saddr & ffff:ffff:ffff:ffff::", Destination6: "ip6 daddr & ffff:ffff:ffff:ffff::",
	}[f]
}

func (m Uplink) text() string {
	if m.Out {
		return fmt.Sprintf("oif %q", m.Interface.Name)
	}
	return fmt.Sprintf("iif %q", m.Interface.Name)
}

func (f Foreign) verb() string {
	return fmt.Sprintf("# another program's rule, handle %d", f.Handle)
}

func (Accept) verb() string      { return "accept" }
func (Drop) verb() string        { return "drop" }
func (a Goto) verb() string      { return "goto " + a.Chain }
func (a Jump) verb() string      { return "jump " + a.Chain }
func (Return) verb() string      { return "return" }
func (ResetTCP) verb() string    { return "reject with tcp reset" }
func (Unreachable) verb() string { return "reject" } // nft's default: icmpx port-unreachable

func (a Dispatch) verb() string { return a.Field.text() + " vmap @" + a.Map }

func (a Masquerade) verb() string {
	if a.Ports == (Ports{}) {
		return "masquerade"
	}
	return "masquerade to " + a.Ports.text()
}

func (a SNAT) verb() string {
	family, first, last := "ip", a.First.String(), a.Last.String()
	if a.First.Is6() {
		family = "ip6"
		if a.Ports != (Ports{}) {
			first, last = "["+first+"]", "["+last+"]"
		}
	}
	text := "snat " + family + " to " + first
	if a.First != a.Last {
		text += "-" + last
	}
	if a.Ports != (Ports{}) {
		text += a.Ports.text()
	}
	return text
}

func (p Ports) text() string {
	if p.First == p.Last {
		return fmt.Sprintf(":%d", p.First)
	}
	return fmt.Sprintf(":%d-%d", p.First, p.Last)
}

// address prints a whole address without its length, as nft does.
func address(field, op string, p netip.Prefix) string {
	family := "ip "
	if p.Addr().Is6() {
		family = "ip6 "
	}
	if p.IsSingleIP() {
		return family + field + " " + op + p.Addr().String()
	}
	return family + field + " " + op + p.String()
}
