package model

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// generator makes networks that the service accepts beside each other: no two of
// them share an address.
type generator struct {
	*rand.Rand
	devices []string
	taken   []netip.Prefix
}

// Generate returns random networks; the same ones for the same seed. devices are
// the host's that a network may be bound to. Subnets are in 10.0.0.0/8 and
// 2001:db8:4000::/34.
func Generate(seed uint64, count int, devices ...string) []Network {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), devices: devices}
	networks := make([]Network, count)
	for i := range networks {
		networks[i] = g.network(i)
	}
	return networks
}

func (g *generator) network(number int) Network {
	n := Network{
		Name: fmt.Sprintf("net%d", number), Bridge: fmt.Sprintf("virbr%d", number),
		Mode: pick(g, NAT, NAT, NAT, NAT, Route, Route, Route, Isolated, Isolated, Open),
	}
	n.Addresses = g.addresses()
	if len(n.own(true)) == 0 {
		n.GuestIPv6 = g.IntN(4) == 0
	}
	if n.Mode == NAT || n.Mode == Route {
		n.Devices = g.bound()
	}
	if n.Mode == NAT {
		g.translation(&n)
	}
	if g.IntN(4) == 0 {
		g.behind(&n, false)
		g.behind(&n, true)
	}
	return n
}

// addresses returns those of a bridge: mostly one of each family, sometimes one
// family alone, or two subnets of one.
func (g *generator) addresses() (all []netip.Prefix) {
	four, six := 1, 1
	switch g.IntN(10) {
	case 0, 1:
		six = 0
	case 2:
		four = 0
	case 3:
		four = 2
	case 4:
		six = 2
	}
	for range four {
		all = append(all, g.on(g.subnet(false)))
	}
	for range six {
		all = append(all, g.on(g.subnet(true)))
	}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// on returns an address of the host in a subnet: usually the first.
func (g *generator) on(subnet netip.Prefix) netip.Prefix {
	number := 1
	if free := subnet.Addr().BitLen() - subnet.Bits(); free > 4 && g.IntN(3) == 0 {
		number = 4 + g.IntN(10)
	}
	return netip.PrefixFrom(Nth(subnet, number), subnet.Bits())
}

// subnet returns one that nobody else has.
func (g *generator) subnet(ipv6 bool) netip.Prefix {
	for {
		subnet := g.anySubnet(ipv6)
		if !slices.ContainsFunc(g.taken, subnet.Overlaps) {
			g.taken = append(g.taken, subnet)
			return subnet
		}
	}
}

func (g *generator) anySubnet(ipv6 bool) netip.Prefix {
	if ipv6 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(a[4:], 1<<30|g.Uint32N(1<<30))
		binary.BigEndian.PutUint64(a[8:], g.Uint64())
		return netip.PrefixFrom(netip.AddrFrom16(a), pick(g, 64, 64, 64, 64, 64, 64, 56, 80, 112, 120)).Masked()
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|g.Uint32N(1<<24))
	return netip.PrefixFrom(netip.AddrFrom4(a), pick(g, 24, 24, 24, 24, 24, 24, 16, 20, 22, 27, 29, 30)).Masked()
}

// bound returns the devices of a network: usually none, sometimes one or two.
func (g *generator) bound() []string {
	devices := slices.Clone(g.devices)
	g.Shuffle(len(devices), func(i, j int) { devices[i], devices[j] = devices[j], devices[i] })
	return devices[:min(len(devices), pick(g, 0, 0, 0, 0, 0, 1, 1, 2))]
}

// translation sets what <nat> says.
func (g *generator) translation(n *Network) {
	n.NAT6 = g.IntN(2) == 0
	if g.IntN(4) == 0 {
		first := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + g.IntN(200))})
		n.Pool = Range{first, Nth(netip.PrefixFrom(first, 24).Masked(), int(first.As4()[3])+g.IntN(4))}
	}
	if g.IntN(4) == 0 {
		low := 1024 + g.IntN(50000)
		n.Ports = [2]uint16{uint16(low), uint16(low + pick(g, 0, 1, 500, 10000))}
	}
}

// behind adds a subnet of a family behind the network's first guest, if guests
// have addresses of the family.
func (g *generator) behind(n *Network, ipv6 bool) {
	if gateways := n.Guest(0, ipv6); len(gateways) > 0 {
		n.Routes = append(n.Routes, Behind{g.subnet(ipv6), gateways[0]})
	}
}

// Guest returns the addresses of a family that the guest with this number, from
// 0, has in a test: one in each subnet that has room for it.
func (n *Network) Guest(number int, ipv6 bool) (all []netip.Addr) {
	for _, host := range n.Addresses {
		if host.Addr().Is6() != ipv6 {
			continue
		}
		for i, left := 1, number; ; i++ {
			a := Nth(host.Masked(), i)
			if a == host.Addr() {
				continue
			}
			if !host.Contains(Nth(host.Masked(), i+1)) {
				break // the last one is the broadcast address
			}
			if left == 0 {
				all = append(all, a)
				break
			}
			left--
		}
	}
	return all
}

// Nth returns an address of a subnet by its number.
func Nth(subnet netip.Prefix, number int) netip.Addr {
	b := subnet.Addr().AsSlice()
	new(big.Int).Add(new(big.Int).SetBytes(b), big.NewInt(int64(number))).FillBytes(b)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func pick[T any](g *generator, choices ...T) T { return choices[g.IntN(len(choices))] }
