package iptables

import (
	"net/netip"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// defaultPorts are the source ports of translated TCP and UDP if the network sets
// none.
var defaultPorts = network.PortRange{First: 1024, Last: 65535}

// libvirt never translates these: multicast does not leave its link, and DHCP
// clients refuse answers whose source port was changed.
var (
	multicast4 = netip.MustParsePrefix("224.0.0.0/24")
	broadcast4 = netip.MustParsePrefix("255.255.255.255/32")
	multicast6 = netip.MustParsePrefix("ff02::/16")
)

// Compile returns the rules of one network in the kernel's order, chain by chain,
// IPv4 first. They are libvirt's, with two differences: subnets of static routes
// are accepted like the network's own (D3), and so is each of several forward
// devices (D10). A network of libvirt's open mode has none.
func Compile(n network.Network) []Rule {
	if n.Mode == network.ModeOpen {
		return nil
	}
	rules := compiler{net: n}.family()
	c := compiler{net: n, ipv6: true}
	if n.IPv6Guests || len(c.subnets()) > 0 {
		rules = append(rules, c.family()...)
	}
	return rules
}

type compiler struct {
	net  network.Network
	ipv6 bool
}

func (c compiler) family() []Rule {
	return slices.Concat(c.nat(), c.mangle(), c.input(), c.output(), c.cross(), c.forwardIn(), c.forwardOut())
}

func (c compiler) chain(table, name string) Rule {
	return Rule{Chain: Chain{IPv6: c.ipv6, Table: table, Name: name}}
}

// subnets returns those of the family, the last first: libvirt inserts each
// address' rules above those of the one before.
func (c compiler) subnets() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range slices.Backward(c.net.Subnets()) {
		if p.Addr().Is6() == c.ipv6 {
			out = append(out, p)
		}
	}
	return out
}

// hasAddress reports whether the host has an address of the family on the bridge.
func (c compiler) hasAddress() bool {
	return slices.ContainsFunc(c.net.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() == c.ipv6 })
}

// devices returns the forward devices, or one "" for any.
func (c compiler) devices() []string {
	if len(c.net.Devices) == 0 {
		return []string{""}
	}
	return c.net.Devices
}

func (c compiler) forwards() bool { return c.net.Mode != network.ModeIsolated }

func (c compiler) translates() bool {
	return c.net.Mode == network.ModeNAT && (!c.ipv6 || c.net.NATIPv6)
}

// service is a port of the host's or, from the host, of the guests'.
type service struct {
	protocol string
	port     uint16
}

// services returns those that libvirt opens whether or not it provides them.
func (c compiler) services(dhcp4, dhcp6 uint16) []service {
	if c.ipv6 {
		if !c.hasAddress() {
			return nil
		}
		return []service{{"udp", dhcp6}, {"udp", 53}, {"tcp", 53}}
	}
	list := []service{{"udp", 53}, {"tcp", 53}, {"udp", dhcp4}, {"tcp", dhcp4}}
	if c.net.TFTP {
		list = append([]service{{"udp", 69}}, list...)
	}
	return list
}

func (c compiler) input() []Rule {
	var rules []Rule
	for _, s := range c.services(67, 547) {
		r := c.chain(tableFilter, ChainInput)
		r.In, r.Protocol, r.Port, r.Target = c.net.Bridge, s.protocol, s.port, targetAccept
		rules = append(rules, r)
	}
	return rules
}

func (c compiler) output() []Rule {
	var rules []Rule
	for _, s := range c.services(68, 546) {
		r := c.chain(tableFilter, ChainOutput)
		r.Out, r.Protocol, r.Port, r.Target = c.net.Bridge, s.protocol, s.port, targetAccept
		rules = append(rules, r)
	}
	return rules
}

func (c compiler) cross() []Rule {
	r := c.chain(tableFilter, ChainCross)
	r.In, r.Out, r.Target = c.net.Bridge, c.net.Bridge, targetAccept
	return []Rule{r}
}

func (c compiler) forwardIn() []Rule {
	var rules []Rule
	for _, p := range c.subnets() {
		for _, dev := range c.devices() {
			r := c.chain(tableFilter, ChainForwardIn)
			r.In, r.Out, r.Dest, r.Replies, r.Target = dev, c.net.Bridge, p, c.translates(), targetAccept
			if c.forwards() {
				rules = append(rules, r)
			}
		}
	}
	last := c.chain(tableFilter, ChainForwardIn)
	last.Out, last.Target = c.net.Bridge, targetReject
	return append(rules, last)
}

func (c compiler) forwardOut() []Rule {
	var rules []Rule
	for _, p := range c.subnets() {
		for _, dev := range c.devices() {
			r := c.chain(tableFilter, ChainForwardOut)
			r.In, r.Out, r.Source, r.Target = c.net.Bridge, dev, p, targetAccept
			if c.forwards() {
				rules = append(rules, r)
			}
		}
	}
	last := c.chain(tableFilter, ChainForwardOut)
	last.In, last.Target = c.net.Bridge, targetReject
	return append(rules, last)
}

// mangle fills in the checksums of DHCP answers, which guests get unfinished
// where the host leaves checksums to a network card.
func (c compiler) mangle() []Rule {
	if c.ipv6 || !c.net.DHCP || !c.hasAddress() {
		return nil
	}
	r := c.chain(tableMangle, ChainPostrouting)
	r.Out, r.Protocol, r.Port, r.Target = c.net.Bridge, "udp", 68, targetChecksum
	return []Rule{r}
}

func (c compiler) nat() []Rule {
	if !c.translates() {
		return nil
	}
	var rules []Rule
	for _, p := range c.subnets() {
		// Link-local traffic is never forwarded, and these rules match by subnet
		// alone: two networks with fe80::/64 would have the same ones.
		if network.OfOneLink(p) {
			continue
		}
		rules = append(rules, c.untranslated(p)...)
		for _, dev := range c.devices() {
			rules = append(rules, c.translate(p, dev)...)
		}
	}
	return rules
}

// untranslated leaves packets from a subnet to one behind a guest untranslated, and
// those back (D3): both are of the same network.
func (c compiler) untranslated(p netip.Prefix) []Rule {
	var rules []Rule
	for _, to := range c.net.UntranslatedTo(p) {
		r := c.chain(tableNAT, ChainPostrouting)
		r.Source, r.Dest, r.Target = p, to, targetReturn
		rules = append(rules, r)
	}
	return rules
}

// translate returns the translation of one subnet out of one device. Ports apply
// to TCP and UDP alone.
func (c compiler) translate(p netip.Prefix, dev string) []Rule {
	rule := func(dest netip.Prefix, target string) Rule {
		r := c.chain(tableNAT, ChainPostrouting)
		r.Out, r.Source, r.Dest, r.Target = dev, p, dest, target
		return r
	}
	never := []netip.Prefix{multicast4, broadcast4}
	pool, ports := c.net.NATAddresses, c.net.NATPorts
	if c.ipv6 {
		never, pool = []netip.Prefix{multicast6}, c.net.NATAddresses6
	}
	if ports.IsZero() {
		ports = defaultPorts
	}
	var rules []Rule
	for _, dest := range never {
		rules = append(rules, rule(dest, targetReturn))
	}
	for _, protocol := range []string{"tcp", "udp", ""} {
		r := rule(p, targetMasquerade)
		r.NotDest, r.Protocol = true, protocol
		if !pool.IsZero() {
			r.Target, r.ToAddress = targetSNAT, pool
		}
		if protocol != "" {
			r.ToPorts = ports
		}
		rules = append(rules, r)
	}
	return rules
}
