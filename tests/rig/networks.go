package rig

import (
	"fmt"
	"os"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// The host's addresses in the network that most tests have, on virbr0.
const (
	NatNet  = "192.168.122.1/24"
	NatNet6 = "2001:db8:122::1/64"
)

// WithNAT returns a host with a NAT network "default" on virbr0, a guest in it, and
// the internet.
func WithNAT(t testing.TB) (r *Rig, guest, internet *host.Peer) {
	t.Helper()
	r = Started(t)
	r.Bridge("virbr0", NatNet)
	r.OK(r.AddXML(NetXML("default", "virbr0", "nat", NatNet)))
	return r, r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
}

// NetXML is servicetest.NetXML.
func NetXML(name, bridge, mode string, cidrs ...string) string {
	return servicetest.NetXML(name, bridge, mode, cidrs...)
}

// NatXML returns the document of the network "default" on virbr0, of both
// families, with this inside its forward element.
func NatXML(inner string) string {
	return "<network><name>default</name><forward mode='nat'>" + inner + "</forward><bridge name='virbr0'/>" +
		"<ip address='192.168.122.1' prefix='24'/><ip family='ipv6' address='2001:db8:122::1' prefix='64'/></network>"
}

// Lab returns the document of a NAT network on virbrNUMBER.
func Lab(name string, number int) string { return Lasting(name, number, "nat") }

// Lasting returns the document of a network on virbrNUMBER, to store: its
// bridge need not exist.
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
