package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// libvirts is what libvirt does with a document.
type libvirts int

const (
	runs        libvirts = iota
	parseError           // refused by the parser
	driverError          // parsed, refused by the driver of bridges when it is defined
)

// libvirtCase is one document of the kinds that libvirt's own test
// networkxml2xmltest has, under its name there, and the two results.
type libvirtCase struct {
	name    string
	libvirt libvirts
	mode    Mode   // ours where it is taken
	refused string // part of our message where it is not
	body    string // of <network>, behind the name
}

const (
	bridge122  = `<bridge name="virbr0" stp="on" delay="0"/>`
	ip122      = `<ip address="192.168.122.1" netmask="255.255.255.0"/>`
	nat122     = bridge122 + `<forward mode="nat"/>` + ip122
	hostsOwn   = "libvirt makes no firewall rules for networks of mode "
	dhcp122    = `<ip address="192.168.122.1" netmask="255.255.255.0"><dhcp>%s</dhcp></ip>`
	range122   = `<range start="192.168.122.2" end="192.168.122.254"/>`
	routedHead = bridge122 + `<forward dev="eth1" mode="route"><interface dev="eth1"/></forward>`
)

func natDHCP(inside string) string {
	return bridge122 + `<forward mode="nat"/>` + fmt.Sprintf(dhcp122, inside)
}

func lease(attrs string) string {
	return natDHCP(`<range start="192.168.122.2" end="192.168.122.254"><lease ` + attrs + `/></range>` +
		`<host mac="00:16:3e:77:e2:ed" name="a" ip="192.168.122.10"><lease ` + attrs + `/></host>`)
}

func natDNS(inside string) string { return nat122 + `<dns>` + inside + `</dns>` }

func natForward(inside string) string {
	return bridge122 + `<forward dev="eth1" mode="nat"><interface dev="eth1"/>` + inside + `</forward>` + ip122
}

func libvirtCases() []libvirtCase {
	pool := `<address start="203.0.113.10" end="203.0.113.20"/>`
	port := `<port start="500" end="1000"/>`
	pci := `<address type="pci" domain="0x0000" bus="0x03" slot="0x00" function="0x1"/>`
	return []libvirtCase{
		{"nat-network", runs, ModeNAT, "", natDHCP(range122) + `<mac address="52:54:00:17:3f:47"/>` +
			`<ip family="ipv6" address="2001:db8:ac10:fe01::1" prefix="64"/><ip family="ipv4" address="10.24.10.1"/>`},
		{"nat-network-forward-nat-address", runs, ModeNAT, "", natForward(`<nat>` + pool + port + `</nat>`)},
		{"nat-network-forward-nat-no-address", runs, ModeNAT, "", natForward(`<nat>` + port + `</nat>`)},
		{"nat-network-forward-nat-ipv6", runs, ModeNAT, "", natForward(`<nat ipv6="yes">`+port+`</nat>`) +
			`<ip family="ipv6" address="2001:db8:ac10:fd01::1" prefix="64"/>`},
		{"nat-network-explicit-flood", runs, ModeNAT, "", `<bridge name="virbr0" stp="on" delay="0" macTableManager="kernel"/><forward mode="nat"/>` + ip122},
		{"nat-network-mtu", runs, ModeNAT, "", nat122 + `<mtu size="9000"/>`},
		{"set-mtu", runs, ModeIsolated, "", bridge122 + `<mtu size="1500"/>`},
		{"nat-network-dns-local-domain", runs, ModeNAT, "", nat122 + `<domain name="example.com" localOnly="yes" register="yes"/>`},
		{"nat-network-dns-txt-record", runs, ModeNAT, "", natDNS(`<txt name="example" value="some text"/>`)},
		{"nat-network-dns-srv-record", runs, ModeNAT, "", natDNS(`<srv service="sip" protocol="tcp" domain="example.com" target="a.example.com" port="5060" priority="10" weight="150"/>`)},
		{"nat-network-dns-srv-records", runs, ModeNAT, "", natDNS(`<srv service="sip" protocol="tcp" target="a" port="5060"/><srv service="sip" protocol="udp" target="b"/>`)},
		{"nat-network-dns-srv-record-minimal", runs, ModeNAT, "", natDNS(`<srv service="sip" protocol="udp"/>`)},
		{"nat-network-dns-hosts", runs, ModeNAT, "", natDNS(`<host ip="192.168.122.1"><hostname>host</hostname><hostname>gateway</hostname></host>`)},
		{"nat-network-dns-forward-plain", runs, ModeNAT, "", nat122 + `<dns forwardPlainNames="no"/>`},
		{"nat-network-dns-forwarders", runs, ModeNAT, "", natDNS(`<forwarder addr="192.0.2.1"/><forwarder domain="example.com" addr="192.0.2.2"/><forwarder domain="www.example.com"/>`)},
		{"nat-network-dns-forwarder-no-resolv", runs, ModeNAT, "", natDNS(`<forwarder addr="192.0.2.1"/>`)},
		{"dhcp6-nat-network", runs, ModeNAT, "", natDHCP(range122) + `<ip family="ipv6" address="2001:db8:ac10:fd01::1" prefix="64"><dhcp>` +
			`<range start="2001:db8:ac10:fd01::1:10" end="2001:db8:ac10:fd01::1:ff"/><host id="0:4:7e:7d:f0:7d:a8:bc:c5:d2" name="a" ip="2001:db8:ac10:fd01::1:20"/></dhcp></ip>`},
		{"dhcp6host-routed-network", runs, ModeRoute, "", routedHead + ip122 + `<ip family="ipv6" address="2001:db8:ac10:fd01::1" prefix="64"><dhcp>` +
			`<host name="a" ip="2001:db8:ac10:fd01::1:20"/></dhcp></ip>`},
		{"routed-network", runs, ModeRoute, "", routedHead + ip122},
		{"routed-network-no-dns", runs, ModeRoute, "", routedHead + ip122 + `<dns enable="no"/>`},
		// libvirt reads what is no firewall's business here, and we don't.
		{"routed-network-no-dns-extra-elements", parseError, ModeRoute, "", routedHead + ip122 + `<dns enable="no"><forwarder addr="192.0.2.1"/></dns>`},
		{"open-network", runs, ModeOpen, "", bridge122 + `<forward mode="open"/>` + ip122},
		{"open-network-with-forward-dev", parseError, "", "a network of mode open cannot restrict the devices", bridge122 + `<forward dev="eth1" mode="open"/>` + ip122},
		{"isolated-network", runs, ModeIsolated, "", bridge122 + fmt.Sprintf(dhcp122, range122)},
		{"isolated-ports", runs, ModeIsolated, "", bridge122 + `<port isolated="yes"/>` + ip122},
		{"netboot-network", runs, ModeNAT, "", bridge122 + `<forward mode="nat"/><ip address="192.168.122.1" netmask="255.255.255.0">` +
			`<tftp root="/var/lib/tftproot"/><dhcp>` + range122 + `<bootp file="pxeboot.img"/></dhcp></ip>`},
		{"netboot-proxy-network", runs, ModeNAT, "", natDHCP(range122 + `<bootp file="pxeboot.img" server="10.20.30.40"/>`)},
		{"netboot-tftp", runs, ModeNAT, "", bridge122 + `<forward mode="nat"/><ip address="192.168.122.1" netmask="255.255.255.0"><tftp root="/var/lib/tftproot"/></ip>`},
		{"bandwidth-network", runs, ModeNAT, "", nat122 + `<bandwidth><inbound average="1000" peak="5000" burst="5120"/><outbound average="128" peak="256" burst="256"/></bandwidth>`},
		{"metadata", runs, ModeIsolated, "", bridge122 + `<title>t</title><description>d</description><metadata><app:data xmlns:app="http://example.org/app"><app:x y="1">z</app:x></app:data></metadata>`},
		{"dnsmasq-options", runs, ModeNAT, "", nat122 + `<d:options xmlns:d="http://libvirt.org/schemas/network/dnsmasq/1.0"><d:option value="foo=bar"/><d:option value="cname=*.a.example,b"/></d:options>`},
		{"leasetime-seconds", runs, ModeNAT, "", lease(`expiry="1200" unit="seconds"`)},
		{"leasetime-minutes", runs, ModeNAT, "", lease(`expiry="20"`)},
		{"leasetime-hours", runs, ModeNAT, "", lease(`expiry="2" unit="hours"`)},
		{"leasetime-infinite", runs, ModeNAT, "", lease(`expiry="0"`)},
		// libvirt chooses a bridge for it when it starts.
		{"empty-allow-ipv6", runs, "", "the document names no bridge", ``},
		{"host-bridge-net", runs, "", hostsOwn + "bridge", `<forward mode="bridge"/><bridge name="br0"/>`},
		{"host-bridge-no-flood", runs, "", hostsOwn + "bridge", `<forward mode="bridge"/><bridge name="br0" macTableManager="libvirt"/>`},
		{"direct-net", runs, "", hostsOwn + "bridge", `<forward mode="bridge" dev="eth0"><interface dev="eth0"/></forward>`},
		{"vepa-net", runs, "", hostsOwn + "vepa", `<forward mode="vepa"><interface dev="eth0"/></forward>` +
			`<virtualport type="802.1Qbg"><parameters managerid="11" typeid="1193047" typeidversion="2" instanceid="b153fa89-1b87-9719-ec12-99e0054fb844"/></virtualport>` +
			`<portgroup name="a" default="yes"/>`},
		{"8021Qbh-net", runs, "", hostsOwn + "private", `<forward mode="private"><interface dev="eth0"/></forward>` +
			`<virtualport type="802.1Qbh"><parameters profileid="test"/></virtualport>`},
		{"openvswitch-net", runs, "", hostsOwn + "bridge", `<forward mode="bridge"/><bridge name="ovs0"/><virtualport type="openvswitch"/>` +
			`<portgroup name="a" default="yes" trustGuestRxFilters="yes"><vlan trunk="yes"><tag id="42" nativeMode="untagged"/><tag id="47"/></vlan></portgroup>`},
		{"passthrough-pf", driverError, "", hostsOwn + "passthrough", `<forward mode="passthrough"><pf dev="eth0"/></forward><ip address="10.1.1.1" netmask="255.255.255.0"/>`},
		{"passthrough-address-crash", driverError, "", hostsOwn + "passthrough", `<forward mode="passthrough">` + pci + `</forward>`},
		{"passthrough-duplicate", parseError, "", hostsOwn + "passthrough", `<forward mode="passthrough"><interface dev="eth0"/><interface dev="eth0"/></forward>`},
		{"hostdev", runs, "", hostsOwn + "hostdev", `<forward mode="hostdev" managed="yes">` + pci + `</forward>`},
		{"hostdev-pf", runs, "", hostsOwn + "hostdev", `<forward mode="hostdev" managed="yes"><pf dev="eth2"/></forward>`},
		{"hostdev-pf-driver-model", runs, "", hostsOwn + "hostdev", `<forward mode="hostdev" managed="yes"><driver name="vfio" model="mlx5_vfio_pci"/><pf dev="eth2"/></forward>`},
		{"hostdev-duplicate", parseError, "", hostsOwn + "hostdev", `<forward mode="hostdev" managed="yes">` + pci + pci + `</forward>`},
	}
}

func (c libvirtCase) document() string {
	attrs := ""
	if c.name == "empty-allow-ipv6" {
		attrs = ` ipv6="yes"`
	}
	return "<network" + attrs + "><name>" + c.name + "</name>" + c.body + "</network>\n"
}

// TestLibvirtsNames compares the parser with libvirt's own tests.
func TestLibvirtsNames(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, c := range libvirtCases() {
		n, err := FromXML([]byte(c.document()))
		switch {
		case c.refused == "" && (err != nil || n.Mode != c.mode):
			t.Errorf("%s: mode %q, error %v; want mode %s", c.name, n.Mode, err, c.mode)
		case c.refused != "" && (err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: %v; want %q", c.name, err, c.refused)
		}
		if err == nil {
			roundTrip(t, n)
		}
		file := filepath.Join(dir, c.name+".xml")
		if err := os.WriteFile(file, []byte(c.document()), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	verdicts := virshDefines(t, files)
	for i, c := range libvirtCases() {
		if parsed := verdicts[files[i]] == ""; parsed != (c.libvirt != parseError) {
			t.Errorf("%s: libvirt's parser says %q", c.name, verdicts[files[i]])
		}
	}
}

// virshDefines defines each document with libvirt's test driver, which has its
// real parser and no host, and returns its errors for those that it refuses.
// The documents' networks are called n, or each differently.
func virshDefines(t *testing.T, files []string) map[string]string {
	t.Helper()
	virsh, err := exec.LookPath("virsh")
	if err != nil {
		t.Fatal("virsh tells what libvirt makes of a document: install libvirt-clients and libvirt-daemon")
	}
	var script strings.Builder
	for _, f := range files {
		// A failure does not end the script.
		fmt.Fprintf(&script, "echo @@%s@@; net-define %s; net-undefine n; ", f, f)
	}
	out, _ := exec.CommandContext(t.Context(), virsh, "-q", "-c", "test:///default", script.String()).CombinedOutput()
	verdicts := make(map[string]string)
	for part := range strings.SplitSeq(string(out), "@@") {
		if strings.HasSuffix(part, ".xml") {
			verdicts[part] = ""
			continue
		}
		if _, text, failed := strings.Cut(part, "Failed to define network"); failed {
			verdicts[files[len(verdicts)-1]] = strings.ReplaceAll(strings.TrimSpace(text), "\n", " ")
		}
	}
	if len(verdicts) != len(files) {
		t.Fatalf("%d verdicts on %d documents:\n%s", len(verdicts), len(files), out)
	}
	return verdicts
}
