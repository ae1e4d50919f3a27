package network

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// refusal is one kind of document that libvirt takes and FromXML refuses. files
// are those of testdata/invalid that are of the kind; a * stands for any.
type refusal struct{ what, why, files string }

func refusals() []refusal {
	return []refusal{
		{"no `<bridge name>`, or a pattern such as `virbr%d`", "libvirt chooses the bridge when it starts the network. Start it, and pass what `virsh net-dumpxml` prints then.",
			"bridge-missing bridge-pattern bridge-unnamed"},
		{"forward modes `bridge`, `private`, `vepa`, `passthrough` and `hostdev`", "The guests are on the host's own network. libvirt makes no rules for them either.",
			"mode-bridge mode-hostdev mode-hostdev-pool mode-private mode-vepa mode-passthrough"},
		{"`<route>` to 0.0.0.0/0 or ::/0", "It is the host's default route through a guest. Every address would belong to the network, so that its guests could send from any.",
			"route-default-route route-default-route-ipv6"},
		{"elements, attributes or text in `<forward>`, `<nat>`, `<bridge>`, `<ip>`, `<dhcp>`, `<route>` and `<name>` that libvirt's schema does not define", "libvirt passes over them. A misspelt restriction would be none, and nobody would be told.",
			"forward-foreign-attribute forward-foreign-element forward-text forward-unknown-attribute forward-unknown-element nat-deep-unknown nat-unknown-element " +
				"bridge-unknown-attribute bridge-unknown-element ip-dhcp-unknown-element ip-unknown-attribute ip-unknown-element route-unknown-attribute name-element"},
		{"a second `<name>`, `<forward>` or `<bridge>`", "libvirt takes the first, which its schema does not allow. The other one may be what was meant.",
			"forward-twice bridge-twice name-twice"},
		{"`<pf>` or `<address type='pci'>` in `<forward>` of a network of another mode than `hostdev`", "libvirt passes over it. Whoever wrote it wanted to bind the network to a device.", "forward-pf"},
		{"a forward device on a network that forwards nothing", "libvirt passes over it. Whoever wrote it did not want an isolated network.", "isolated-dev"},
		{"a forward device that is the network's own bridge", "Nothing would be forwarded to the outside.", "forward-dev-bridge"},
		{"a forward device whose name has more than 15 bytes", "No link's own name is so long. A long alternative name has a short one beside it: `ip link` lists both.", "forward-dev-too-long"},
		{"bridge names with a space, `/`, `\"`, `:`, `%` or `\\`, and `all` and `default`", "The kernel has no such link, so libvirt cannot start the network; or the name means something else in /proc/sys.",
			"bridge-all bridge-nbsp-byte bridge-quote bridge-slash bridge-space"},
		{"bridge names that end in `*` or `+`", "nft and iptables take such a name for a wildcard: the rules would hold for other interfaces too.", "bridge-plus bridge-wildcard"},
		{"zone names that firewalld does not allow", "libvirt asks firewalld only where that runs. The bridge could enter no such zone.", "zone-slashes zone-space zone-too-long zone-trailing-slash"},
		{"names that are `.` or `..`, have control characters or over 128 bytes", "A name becomes a file's, an object's on D-Bus and a comment in rules.", "name-dots name-newline name-too-long"},
		{"subnets larger than a /8 (IPv4) or a /16 (IPv6)", "Rules for half of all addresses would take the host's own traffic for the guests'.", "ip-larger-than-8 ip-larger-than-16"},
		{"subnets that cover loopback, multicast, unspecified, broadcast or IPv4-mapped addresses", "No guest can have such an address; the host's own traffic has them.",
			"ip-loopback ip-loopback-ipv6 ip-mapped ip-multicast ip-multicast-ipv6 ip-unspecified ip-unspecified-ipv6"},
		{"`<ip>` without netmask and prefix where the address has no class", "libvirt finds no length for it when it starts the network.", "ip-multicast-without-prefix"},
		{"`prefix='0'`, a netmask of 0.0.0.0, a netmask with gaps", "libvirt takes the first two as not given and the last as something shorter. The subnet is not the one that was written.",
			"ip-prefix-zero ip-netmask-zero ip-netmask-gap"},
		{"IPv4 addresses with leading zeros", "Some programs read them as octal: the address is another one for them.", "ip-leading-zero"},
		{"the same `<ip>` twice", "One of the two was meant to be another one.", "ip-twice"},
		{"`<port start='0'/>` in `<nat>`", "Port 0 cannot be used. libvirt's rule would have it nevertheless.", "nat-port-zero"},
		{"more than 64 addresses or routes", "A bound on what one client can ask of the kernel.", "ip-too-many route-too-many"},
		{"`<!DOCTYPE>`, and elements nested more than 32 deep", "No network needs them; they are how a small document becomes a large one.", "xml-doctype xml-entity-bomb xml-too-deep"},
		{"mistakes in this service's own element in `<metadata>`", "libvirt does not read it. [metadata.md](metadata.md) says what it may contain.", "own-*"},
	}
}

// has reports whether a file of testdata/invalid is of the kind.
func (r refusal) has(name string) bool {
	for pattern := range strings.FieldsSeq(r.files) {
		if ok, err := filepath.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// TestRefusalsOfWhatLibvirtTakes: of the documents that FromXML refuses, those
// that libvirt's own parser takes are each of a kind that the page has, and the
// page has no kind that libvirt refuses as well.
func TestRefusalsOfWhatLibvirtTakes(t *testing.T) {
	docs := corpus(t, "testdata/invalid")
	dir, names := t.TempDir(), slices.Sorted(maps.Keys(docs))
	var files []string
	for _, name := range names {
		doc := string(docs[name])
		if strings.Contains(doc, "<forward") && !strings.Contains(doc, "<ip") { // libvirt wants one there
			doc = strings.Replace(doc, "</network>", "<ip address='10.99.0.1' prefix='24'/></network>", 1)
		}
		file := filepath.Join(dir, name+".xml")
		if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	verdicts, taken := virshDefines(t, files), map[string]bool{}
	for i, name := range names {
		libvirts, ours := verdicts[files[i]] == "", ""
		for _, r := range refusals() {
			if r.has(name) {
				ours = r.what
				taken[ours] = taken[ours] || libvirts
			}
		}
		if libvirts && ours == "" {
			t.Errorf("libvirt takes %s, and no kind of refusal in the page is for it", name)
		}
	}
	for _, r := range refusals() {
		if !taken[r.what] {
			t.Errorf("libvirt refuses every document of the kind: %s", r.what)
		}
	}
	golden(t, filepath.Join(docsDir, "documents.md"), documentsPage(t))
}

// documentsPage returns the page with the table of refusals as it is now.
func documentsPage(t *testing.T) string {
	t.Helper()
	const begin, end = "<!-- refusals -->\n", "<!-- end of refusals -->\n"
	page, err := os.ReadFile(filepath.Join(docsDir, "documents.md"))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the page has no place for the table")
	}
	var table strings.Builder
	table.WriteString("| document | why |\n|---|---|\n")
	for _, r := range refusals() {
		fmt.Fprintf(&table, "| %s | %s |\n", r.what, r.why)
	}
	return head + begin + table.String() + end + tail
}
