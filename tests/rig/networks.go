package rig

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// The host's addresses in the network that most tests have, on virbr0.
const (
	NatNet  = "192.168.122.1/24"
	NatNet6 = "2001:db8:122::1/64"
)

// WithNAT makes a host with a NAT network "default" on virbr0, a guest in it, and
// the internet.
func WithNAT(t testing.TB) (r *Rig, guest, internet *host.Peer) {
	t.Helper()
	r = Started(t)
	r.Bridge("virbr0", NatNet)
	r.OK(r.AddXML(NetXML("default", "virbr0", "nat", NatNet)))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
}

// NetXML returns a network's document as libvirt writes it; ips are
// "192.168.122.1/24", and mode nat6 is nat for both families.
func NetXML(name, bridge, mode string, ips ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<network><name>%s</name>", name)
	switch mode {
	case "isolated":
	case "nat6":
		b.WriteString("<forward mode='nat'><nat ipv6='yes'/></forward>")
	default:
		fmt.Fprintf(&b, "<forward mode='%s'/>", mode)
	}
	fmt.Fprintf(&b, "<bridge name='%s'/>", bridge)
	for _, ip := range ips {
		addr, bits, _ := strings.Cut(ip, "/")
		family := "ipv4"
		if strings.Contains(addr, ":") {
			family = "ipv6"
		}
		fmt.Fprintf(&b, "<ip family='%s' address='%s' prefix='%s'/>", family, addr, bits)
	}
	b.WriteString("</network>")
	return b.String()
}

// NatXML returns the document of the network "default" on virbr0, of both
// families, with this inside its forward element.
func NatXML(inner string) string {
	return "<network><name>default</name><forward mode='nat'>" + inner + "</forward><bridge name='virbr0'/>" +
		"<ip address='192.168.122.1' prefix='24'/><ip family='ipv6' address='2001:db8:122::1' prefix='64'/></network>"
}

// Lab returns the document of a NAT network on virbrNUMBER.
func Lab(name string, number int) string { return Lasting(name, number, "nat") }

// Lasting returns the document of a network on virbrNUMBER, to store: nobody
// needs its bridge.
func Lasting(name string, number int, mode string) string {
	return NetXML(name, fmt.Sprintf("virbr%d", number), mode, fmt.Sprintf("10.%d.0.1/24", number))
}

// Corpus returns a file of the network documents that the parser is tested with.
func Corpus(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(Source("service/network/testdata", name))
	Must(t, err)
	return string(text)
}
