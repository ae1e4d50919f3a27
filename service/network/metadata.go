package network

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// MetadataNamespace is the namespace of the element in a document's <metadata> for
// what libvirt's own elements cannot express: docs/metadata.md.
const MetadataNamespace = "https://virtfirewall.org/ns/network/1"

// ownMetadata is the element, in libvirt's own structures where they are the same.
type ownMetadata struct {
	Forward *libvirtxml.NetworkForward    `xml:"forward"`
	NAT     *libvirtxml.NetworkForwardNAT `xml:"nat"`
	Routes  []libvirtxml.NetworkRoute     `xml:"route"`
	Serve   *ownServe                     `xml:"serve"`
}

// ownServe overrides the document's settings of the host's services: "yes", "no",
// or "" for the document's.
type ownServe struct {
	DHCP string `xml:"dhcp,attr"`
	DNS  string `xml:"dns,attr"`
	TFTP string `xml:"tftp,attr"`
}

// metadata reads our element in <metadata>, and ignores others'.
func (w *walker) metadata(parent *frame) error {
	if err := w.checkOnce(parent, "metadata", &element{once: true}); err != nil {
		return err
	}
	for outside := w.depth - 1; w.depth > outside; {
		tok, err := w.raw()
		if err != nil {
			return err
		}
		t, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if t.Name.Space != MetadataNamespace {
			err = w.skip()
		} else {
			err = w.ownElement(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) ownElement(t xml.StartElement) (err error) {
	if t.Name.Local != "network" {
		return invalid(w.location("metadata"), "it contains an unknown element %s of %s: correct its name, or remove it", quote(t.Name.Local), MetadataNamespace)
	}
	if w.own != nil {
		return invalid(w.location("metadata"), "it contains a second network element of %s: keep one", MetadataNamespace)
	}
	w.own = new(ownMetadata)
	if w.pending, err = w.enter(t, ownNetwork, MetadataNamespace); err != nil {
		return err
	}
	return decode(w, w.own)
}

// readOwn adds the settings of our element.
func (n *Network) readOwn(own *ownMetadata) error {
	if own == nil {
		return nil
	}
	if err := n.readOwnForward(own.Forward); err != nil {
		return err
	}
	if err := n.readOwnPool(own.NAT); err != nil {
		return err
	}
	if len(own.Routes) > MaxRoutes {
		return &LimitError{Field: "Routes", Got: len(own.Routes), Max: MaxRoutes, Unit: "routes"}
	}
	for _, r := range own.Routes {
		a, err := parseAddr("<route> in <metadata>", r.Address)
		if err != nil {
			return err
		}
		if r.Prefix == 0 || r.Prefix > uint(a.BitLen()) {
			return invalid("<route> in <metadata>", "%s needs a prefix of at most %d: add it", a, a.BitLen())
		}
		n.Routes = append(n.Routes, netip.PrefixFrom(a, int(r.Prefix)))
	}
	if s := own.Serve; s != nil {
		override(&n.DHCP, s.DHCP)
		override(&n.DNS, s.DNS)
		override(&n.TFTP, s.TFTP)
	}
	return nil
}

func override(b *bool, text string) {
	if text != "" {
		*b = text == "yes"
	}
}

// readOwnForward sets the mode of a network that libvirt leaves alone. If libvirt
// makes rules of its own, a second mode would contradict them.
func (n *Network) readOwnForward(f *libvirtxml.NetworkForward) error {
	const field = "<forward> in <metadata>"
	if f == nil {
		return nil
	}
	if n.Mode != ModeOpen {
		return invalid(field, "the network's own <forward> says %s already: make that mode='open', or remove this one", n.Mode)
	}
	switch m := Mode(f.Mode); m {
	case ModeNAT, ModeRoute, ModeOpen, ModeIsolated:
		n.Mode = m
	default:
		return invalid(field, "its mode is %s: use nat, route, open or isolated", quote(f.Mode))
	}
	if err := n.readDevices("", f.Interfaces); err != nil {
		return err
	}
	return n.readNAT(f.NAT, true)
}

// readOwnPool adds the IPv6 pool, which libvirt's <nat> cannot have.
func (n *Network) readOwnPool(nat *libvirtxml.NetworkForwardNAT) error {
	if nat == nil {
		return nil
	}
	for _, a := range nat.Addresses {
		if !strings.Contains(a.Start, ":") {
			return invalid("<nat> in <metadata>", "%s is not an IPv6 address: put IPv4 ranges into the <nat> of <forward>", quote(a.Start))
		}
		if err := n.readPool(a, true); err != nil {
			return err
		}
	}
	return nil
}

// ownXML returns the content of <metadata> for what the rest of the document
// cannot express; "" for nothing.
func (n Network) ownXML() string {
	var b strings.Builder
	if r := n.NATAddresses6; !r.IsZero() {
		fmt.Fprintf(&b, "      <virtfirewall:nat>\n        <virtfirewall:address start=\"%s\" end=\"%s\"/>\n      </virtfirewall:nat>\n", r.First, r.Last)
	}
	for _, p := range n.Routes {
		fmt.Fprintf(&b, "      <virtfirewall:route address=\"%s\" prefix=\"%d\"/>\n", p.Addr(), p.Bits())
	}
	var serve string
	if n.DHCP && len(n.Addresses) == 0 {
		serve += ` dhcp="yes"`
	}
	if n.TFTP {
		serve += ` tftp="yes"`
	}
	if serve != "" {
		fmt.Fprintf(&b, "      <virtfirewall:serve%s/>\n", serve)
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n    <virtfirewall:network xmlns:virtfirewall=\"%s\">\n%s    </virtfirewall:network>\n  ", MetadataNamespace, b.String())
}
