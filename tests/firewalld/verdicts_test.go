package firewalld

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// walled is a network of the table of verdicts, behind firewalld.
type walled struct{ mode, zone string }

// title returns the network's column.
func (w walled) title() string {
	if w.zone == "" {
		return w.mode
	}
	return w.mode + "/" + w.zone
}

// column is a network with a guest, as it is probed.
type column struct {
	walled
	bridge     string
	guest      *host.Peer
	host4      netip.Addr
	host6      netip.Addr
	guest4     netip.Addr
	guest6     netip.Addr
	neighbour4 netip.Addr // a guest of another network
	neighbour6 netip.Addr
	other      *host.Peer
}

// question is a row: what is tried, in one family.
type question struct {
	what string
	try  func(c column) host.Result
}

// questions returns all rows. Zone trusted allows everything to the host, zone work
// SSH and DHCPv6 clients, zone libvirt what libvirt's guests need.
func questions(r *rig.Rig, internet *host.Peer) []question {
	var out []question
	ask := func(what string, from, to func(column) host.Node, proto host.Proto, at func(column) netip.AddrPort) {
		out = append(out, question{what, func(c column) host.Result {
			return rig.TryPatiently(from(c), to(c), host.Probe{Proto: proto, To: at(c)})
		}})
	}
	guest := func(c column) host.Node { return c.guest }
	other := func(c column) host.Node { return c.other }
	self := func(column) host.Node { return r.Host }
	outside := func(column) host.Node { return internet }
	for _, ipv6 := range []bool{false, true} {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[ipv6]
		pick := func(port uint16, four, six func(column) netip.Addr) func(column) netip.AddrPort {
			return func(c column) netip.AddrPort {
				if ipv6 {
					return netip.AddrPortFrom(six(c), port)
				}
				return netip.AddrPortFrom(four(c), port)
			}
		}
		host4, host6 := func(c column) netip.Addr { return c.host4 }, func(c column) netip.Addr { return c.host6 }
		guest4, guest6 := func(c column) netip.Addr { return c.guest4 }, func(c column) netip.Addr { return c.guest6 }
		neighbour4, neighbour6 := func(c column) netip.Addr { return c.neighbour4 }, func(c column) netip.Addr { return c.neighbour6 }
		world4, world6 := fixed("203.0.113.1"), fixed("2001:db8:ffff::1")
		for _, s := range hostServices(ipv6) {
			ask(family+" guest -> host "+s.name, guest, self, s.proto, pick(s.port, host4, host6))
		}
		for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
			ask(fmt.Sprintf("%s guest -> outside %s", family, proto), guest, outside, proto, pick(0, world4, world6))
			ask(fmt.Sprintf("%s outside -> guest %s", family, proto), outside, guest, proto, pick(0, guest4, guest6))
		}
		ask(family+" guest -> other network", guest, other, host.TCP, pick(0, neighbour4, neighbour6))
		ask(family+" other network -> guest", other, guest, host.TCP, pick(0, guest4, guest6))
		ask(family+" host -> guest", self, guest, host.TCP, pick(0, guest4, guest6))
	}
	return out
}

func fixed(addr string) func(column) netip.Addr {
	return func(column) netip.Addr { return netip.MustParseAddr(addr) }
}

type hostService struct {
	name  string
	proto host.Proto
	port  uint16
}

// hostServices are what a guest may want of the host, and two ports that are
// nothing.
func hostServices(ipv6 bool) []hostService {
	dhcp := hostService{"DHCP", host.UDP, 67}
	if ipv6 {
		dhcp = hostService{"DHCPv6", host.UDP, 547}
	}
	return []hostService{
		dhcp, {"DNS udp", host.UDP, 53}, {"DNS tcp", host.TCP, 53}, {"SSH", host.TCP, 22}, {"TFTP", host.UDP, 69},
		{"ping", host.ICMP, 0}, {"8080 tcp", host.TCP, 8080}, {"8080 udp", host.UDP, 8080},
	}
}

// TestVerdictsBehindFirewalld measures with packets what a guest can do, for
// each forward mode with and without a zone of its own, beside the real
// firewalld. The table is the same for all its versions and both its backends.
func TestVerdictsBehindFirewalld(t *testing.T) {
	t.Parallel()
	all := []walled{
		{"nat", ""}, {"nat", "trusted"}, {"nat", "work"}, {"route", ""}, {"route", "trusted"}, {"route", "work"},
		{"isolated", ""}, {"isolated", "trusted"}, {"isolated", "work"}, {"open", ""}, {"open", "trusted"}, {"open", "work"},
	}
	// Without policies, as firewalld before 0.9, routed networks are in zone
	// libvirt, which lets nobody in from outside.
	fallback := []walled{{"nat", ""}, {"route", ""}, {"isolated", ""}, {"open", ""}}
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			text := "With firewalld's policies\n\n" + verdictTable(t, backend, rig.AllZones, all) +
				"\nWithout policies, as before firewalld 0.9\n\n" + verdictTable(t, backend, []string{"libvirt"}, fallback)
			rig.Golden(t, "testdata/firewalld-verdicts.golden", text)
			documented(t, rig.Source("docs/firewalld.md"), text)
		})
	}
}

// documented checks that a document ends in a text that was measured.
func documented(t *testing.T, file, text string) {
	t.Helper()
	doc, err := os.ReadFile(file)
	rig.Must(t, err)
	prose, _, found := strings.Cut(string(doc), "```")
	if whole := prose + "```\n" + text + "```\n"; *rig.Update {
		rig.Must(t, os.WriteFile(file, []byte(whole), 0o644))
	} else if !found || string(doc) != whole {
		t.Errorf("%s is stale: renew it with -update", file)
	}
}

func verdictTable(t *testing.T, backend string, zones []string, networks []walled) string {
	t.Helper()
	r := rig.New(t)
	r.Firewalld.SetZones(zones...)
	r.Firewalld.Start(backend)
	r.StartDaemon()
	rig.AnswerEverything(r.Host)
	internet := r.Internet()
	columns := wallIn(r, networks)
	rows := questions(r, internet)
	cells := make([][]string, len(columns))
	var wait sync.WaitGroup
	for i, c := range columns {
		cells[i] = make([]string, len(rows))
		wait.Go(func() {
			for j, q := range rows {
				cells[i][j] = short(q.try(c), c)
			}
		})
	}
	wait.Wait()
	return layOut(columns, rows, cells)
}

// wallIn makes the networks, each with a guest, and one more network that they
// have for a neighbour.
func wallIn(r *rig.Rig, networks []walled) []column {
	r.T.Helper()
	r.Bridge("virbr99", "10.99.0.1/24", "2001:db8:99::1/64")
	r.OK(r.AddXML(rig.NetXML("other", "virbr99", "nat6", "10.99.0.1/24", "2001:db8:99::1/64")))
	other := r.Guest("virbr99", "other", "10.99.0.10/24", "2001:db8:99::10/64")
	var columns []column
	for i, n := range networks {
		bridge := fmt.Sprintf("virbr%d", i)
		four, six := fmt.Sprintf("10.%d.0.", i+1), fmt.Sprintf("2001:db8:%d::", i+1)
		r.Bridge(bridge, four+"1/24", six+"1/64")
		mode := n.mode
		if mode == "nat" {
			mode = "nat6"
		}
		xml := rig.NetXML(fmt.Sprintf("net%d", i), bridge, mode, four+"1/24", six+"1/64")
		if n.zone != "" {
			xml = inZone(xml, n.zone)
		}
		r.OK(r.AddXML(xml))
		columns = append(columns, column{
			walled: n, bridge: bridge, other: other,
			guest: r.Guest(bridge, fmt.Sprintf("guest%d", i), four+"10/24", six+"10/64"),
			host4: netip.MustParseAddr(four + "1"), host6: netip.MustParseAddr(six + "1"),
			guest4: netip.MustParseAddr(four + "10"), guest6: netip.MustParseAddr(six + "10"),
			neighbour4: netip.MustParseAddr("10.99.0.10"), neighbour6: netip.MustParseAddr("2001:db8:99::10"),
		})
	}
	return columns
}

// short returns a verdict in a word.
func short(r host.Result, c column) string {
	v := rig.Verdict(r)
	switch {
	case v == "refused":
		return "-"
	case v != "passes":
		return v
	case r.Seen.Addr() == netip.MustParseAddr("203.0.113.2") || r.Seen.Addr() == netip.MustParseAddr("2001:db8:ffff::2"):
		return "NAT"
	}
	return "yes"
}

func layOut(columns []column, rows []question, cells [][]string) string {
	var b strings.Builder
	line := func(first string, cell func(i int) string) {
		text := fmt.Sprintf("%-31s", first)
		for i := range columns {
			text += fmt.Sprintf(" %-16s", cell(i))
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	line("", func(i int) string { return columns[i].title() })
	for j, q := range rows {
		line(q.what, func(i int) string { return cells[i][j] })
	}
	return b.String()
}
