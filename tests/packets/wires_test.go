package packets

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/model"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// node is a machine beside the host: a tap, and what it has addresses of. The
// first guest of a network also has those of the subnets behind it.
type node struct {
	tap     *host.Tap
	device  string // of the host, where packets of the machine come in
	network *model.Network
	addrs   [2][]netip.Addr // by family
	mac     net.HardwareAddr
}

// add adds addresses; not IPv6's link-local ones, which no host forwards.
func (n *node) add(addrs ...netip.Addr) {
	for _, a := range addrs {
		if a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		n.addrs[index(a.Is6())] = append(n.addrs[index(a.Is6())], a)
	}
}

func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// arrival is a packet that a machine got.
type arrival struct {
	at *node
	heard
}

// wires is a host with networks, of which each has two guests that are no more
// than network cards, and other such machines outside: on two uplinks, and on a bridge that
// nobody gave to the service.
type wires struct {
	*rig.Rig
	random  *rand.Rand // of packets
	model   *model.Host
	outside []*node            // internet, lan and a machine on the unmanaged bridge
	guests  map[string][]*node // by network
	home    map[netip.Addr]*node
	devices map[string][]netip.Addr // the host's addresses

	documents map[string]string // of networks that are stored otherwise than the model writes them

	number   uint32 // of the latest packet
	mu       sync.Mutex
	arrivals map[uint32][]arrival
	readers  sync.WaitGroup
	commands strings.Builder // of ip, to be run
}

// group is the one of the links that the test makes.
const group = 7

// Addresses that nobody has: the default route leads there.
var unknown = []netip.Addr{netip.MustParseAddr("100.127.9.9"), netip.MustParseAddr("2001:db8:bad::9")}

// newWires makes a host with random networks, and the machines outside. The
// networks are to come.
func newWires(t *testing.T, seed uint64, networks []model.Network, rules model.Rules) *wires {
	t.Helper()
	w := &wires{
		random: rand.New(rand.NewPCG(seed, 2)),
		model:  model.NewHost(networks, rules), guests: map[string][]*node{}, home: map[netip.Addr]*node{},
		devices: map[string][]netip.Addr{}, arrivals: map[uint32][]arrival{}, number: 1 << 28, documents: map[string]string{},
	}
	w.Rig = rig.New(t, host.WithForwarding()) // of both families, whatever networks there are
	t.Cleanup(w.close)
	w.answerEverything()
	w.addOutside()
	w.build()
	return w
}

// govern makes the networks' bridges and guests, and starts the service.
func (w *wires) govern() {
	w.T.Helper()
	networks := w.model.Networks
	for i := range networks {
		n := &networks[i]
		w.bridge(n.Bridge, 256+i)
		w.raise(n.Bridge, n.Addresses...)
		w.addGuests(n, i)
		for _, r := range n.Routes {
			via := ""
			if r.Gateway.IsValid() {
				via = "via " + r.Gateway.String()
			}
			w.ip("route add %s %s dev %s", r.Subnet, via, n.Bridge)
		}
	}
	w.build()
	w.readAll()
	w.store(networks)
	// Not owned, so that a test can change it in the service's place.
	w.Configure("own_table = false\nfirewall_backend = \"" + string(w.model.Rules) + "\"")
	w.StartDaemon()
	for i := range networks {
		w.AwaitState(networks[i].Name, "active")
	}
}

// libvirt has the real libvirt make the networks, and adds the guests. Their
// bridges forward at once, and no dnsmasq need be started. libvirt has the backend
// nftables since 10.4; before, it does not read the file. With it no network starts
// where the kernel has no tc action csum, and no packet of the test needs that.
func (w *wires) libvirt() {
	w.T.Helper()
	w.Write("/etc/libvirt/network.conf", "firewall_backend = \"nftables\"\n")
	w.Must("sh", "-c", "ln -sf /bin/true $(command -v tc)")
	virt := rig.LibvirtOn(w.T, w.Host)
	for i := range w.model.Networks {
		n := &w.model.Networks[i]
		bridge := fmt.Sprintf("<bridge name='%s'", n.Bridge)
		xml := strings.Replace(n.XML(), bridge, "<dns enable='no'/>"+bridge+" stp='off' delay='0'", 1)
		rig.Must(w.T, virt.CreateNetwork(xml))
		for _, a := range n.Addresses {
			w.devices[n.Bridge] = append(w.devices[n.Bridge], a.Addr())
		}
		w.addGuests(n, i)
	}
	w.build()
	w.readAll()
	w.T.Logf("libvirt %s: %s", virt.Version, strings.Fields(w.Must("nft", "list", "tables")))
}

// answerEverything lifts the kernel's limits of ICMP errors.
func (w *wires) answerEverything() {
	rig.AnswerEverything(w.Host)
	w.Must("sysctl", "-q", "-w", "net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratemask=0")
}

func (w *wires) addOutside() {
	for i, o := range []struct{ device, tap, four, six string }{
		{"wan0", "wan0", "203.0.113", "2001:db8:ffff:"}, {"lan0", "lan0", "198.51.100", "2001:db8:eeee:"},
		{"strange0", "stranger", "172.31.0", "2001:db8:5555:"},
	} {
		n := &node{device: o.device, tap: w.Tap(o.tap, uint16(i))}
		n.add(netip.MustParseAddr(o.four+".1"), netip.MustParseAddr(o.six+":1"))
		w.outside = append(w.outside, n)
		if o.tap != o.device {
			w.bridge(o.device, i)
		}
		w.connect(n)
		w.raise(o.device, netip.MustParsePrefix(o.four+".2/24"), netip.MustParsePrefix(o.six+":2/64"))
	}
	w.ip("route add default via 203.0.113.1")
	w.ip("route add default via 2001:db8:ffff::1")
	for _, a := range unknown {
		w.home[a] = w.outside[0]
	}
}

// addGuests makes the guests of a network. The bridge also gets a subnet of each
// family that its network does not know, and both guests addresses of them: but
// none of IPv6 where libvirt has switched that off.
func (w *wires) addGuests(n *model.Network, number int) {
	alien := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(number), 0}), 24)}
	if w.model.Rules != model.Libvirt || len(n.Guest(0, true)) > 0 {
		alien = append(alien, netip.MustParsePrefix(fmt.Sprintf("2001:db8:a11e:%x::/64", number)))
	}
	for i := range 2 {
		g := &node{device: n.Bridge, network: n, tap: w.Tap(fmt.Sprintf("tap%d.%d", number, i), uint16(256+2*number+i))}
		for family, a := range alien {
			g.add(n.Guest(i, family == 1)...)
			g.add(model.Nth(a, 2+i))
		}
		w.connect(g)
		w.guests[n.Name] = append(w.guests[n.Name], g)
	}
	for _, a := range alien {
		w.ip("route add %s dev %s", a, n.Bridge)
	}
	for _, r := range n.Routes {
		w.addBehind(n, r)
	}
}

// addBehind gives the first guest an address of a subnet behind it, which is not
// at the same time of the network's own.
func (w *wires) addBehind(n *model.Network, r model.Behind) {
	number := 2
	for ; slices.ContainsFunc(n.Addresses, func(a netip.Prefix) bool { return a.Contains(model.Nth(r.Subnet, number)) }); number += 250 {
		if !r.Subnet.Contains(model.Nth(r.Subnet, number+250)) {
			return
		}
	}
	first, a := w.guests[n.Name][0], model.Nth(r.Subnet, number)
	first.add(a)
	w.home[a] = first
	if !r.Gateway.IsValid() {
		w.ip("neigh add %s lladdr %s dev %s", a, first.tap.MAC, n.Bridge)
	}
}

// bridge makes a bridge. Without an address of its own it would take that of one
// of its ports, and each change makes the kernel forget all neighbours.
func (w *wires) bridge(name string, number int) {
	w.ip("link add %s address 52:54:1:0:%x:%x type bridge", name, number>>8, number&0xff)
	w.ip("link set %s group %d", name, group)
}

// ip adds a command to those that build runs.
func (w *wires) ip(format string, args ...any) {
	fmt.Fprintf(&w.commands, format+"\n", args...)
}

// raise brings a device up and gives it addresses.
func (w *wires) raise(device string, addrs ...netip.Prefix) {
	w.ip("link set %s up", device)
	for _, a := range addrs {
		nodad := ""
		if a.Addr().Is6() {
			nodad = "nodad"
		}
		w.ip("addr add %s dev %s %s", a, device, nodad)
		if !a.Addr().Is6() || !a.Addr().IsLinkLocalUnicast() {
			w.devices[device] = append(w.devices[device], a.Addr())
		}
	}
}

// connect puts a machine's tap into its bridge, and tells the host where the
// machine's addresses are: nothing there answers who asks for one.
func (w *wires) connect(n *node) {
	if n.tap.Device != n.device {
		w.ip("link set %s master %s", n.tap.Device, n.device)
	}
	w.ip("link set %s up group %d", n.tap.Device, group)
	for _, addrs := range n.addrs {
		for _, a := range addrs {
			w.home[a] = n
			w.ip("neigh add %s lladdr %s dev %s", a, n.tap.MAC, n.device)
		}
	}
}

// build makes all links at once, and waits until they carry packets.
func (w *wires) build() {
	w.T.Helper()
	if out, err := w.RunInput(w.commands.String(), "ip", "-batch", "-"); err != nil {
		w.T.Fatalf("ip -batch: %v\n%s", err, out)
	}
	w.commands.Reset()
	var devices []string
	for _, n := range w.nodes() {
		devices = append(devices, n.device, n.tap.Device)
	}
	w.AwaitLinks(devices...)
	w.learn()
}

// learn reads the MAC addresses of the host's devices.
func (w *wires) learn() {
	macs := map[string]net.HardwareAddr{}
	err := w.Do(func() error {
		links, err := net.Interfaces()
		for _, link := range links {
			macs[link.Name] = link.HardwareAddr
		}
		return err
	})
	rig.Must(w.T, err)
	for _, n := range w.nodes() {
		n.mac = macs[n.device]
	}
}

// nodes returns all machines.
func (w *wires) nodes() []*node {
	all := slices.Clone(w.outside)
	for i := range w.model.Networks {
		all = append(all, w.guests[w.model.Networks[i].Name]...)
	}
	return all
}

// store writes the networks' documents where the service finds them at its start.
func (w *wires) store(networks []model.Network) {
	err := w.Inside(func() error {
		if err := os.MkdirAll(rig.NetworksDir, 0o755); err != nil {
			return err
		}
		for i := range networks {
			n := &networks[i]
			text := cmp.Or(w.documents[n.Name], n.XML())
			if err := os.WriteFile(filepath.Join(rig.NetworksDir, n.Name+".xml"), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	rig.Must(w.T, err)
}

// readAll begins to note what all machines get.
func (w *wires) readAll() {
	for _, n := range w.nodes() {
		w.readers.Go(func() {
			b := make([]byte, 1<<16)
			for {
				size, err := n.tap.Read(b)
				if err != nil {
					return
				}
				w.note(n, b[:size])
			}
		})
	}
}

// note notes a numbered packet that is for the machine, or for all on its bridge.
func (w *wires) note(n *node, frame []byte) {
	const toAll = 1 // bit of an Ethernet address
	h, ok := read(frame)
	if !ok || frame[0]&toAll == 0 && string(frame[:6]) != string(n.tap.MAC) {
		return
	}
	h.mac = append(net.HardwareAddr(nil), h.mac...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arrivals[h.number] = append(w.arrivals[h.number], arrival{n, h})
}

// became returns what arrived of a probe's last attempt: the packet, or a refusal.
func (w *wires) became(p *probe) []arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := slices.Clone(w.arrivals[p.number])
	if p.answers != 0 {
		got = append(got, w.arrivals[ofReply|p.answers]...)
	}
	return got
}

// close ends the service, for which each device that goes is news, and removes
// all devices in one step: closing the taps one by one takes half a minute.
func (w *wires) close() {
	if w.Daemon != nil {
		w.KillDaemon()
	}
	if out, err := w.Run("ip", "link", "del", "group", fmt.Sprint(group)); err != nil {
		w.T.Errorf("removing the links: %v\n%s", err, out)
	}
	for _, n := range w.nodes() {
		n.tap.Close()
	}
	w.readers.Wait()
}
