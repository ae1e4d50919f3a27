package tests

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

var update = flag.Bool("update", false, "write the goldens anew")

// village is a network of every kind on one host, a guest in each, and what is
// outside. Where the text says v6, the network has IPv6 too.
var village = []struct{ name, bridge, xml string }{
	{"nat", "virbr1", netXML("nat", "virbr1", "nat6", "10.1.0.1/24", "2001:db8:1::1/64")},
	{"nat2", "virbr2", netXML("nat2", "virbr2", "nat6", "10.2.0.1/24", "2001:db8:2::1/64")},
	{"nat-v6-routed", "virbr3", netXML("nat-v6-routed", "virbr3", "nat", "10.3.0.1/24", "2001:db8:3::1/64")},
	{"nat-wan", "virbr4", strings.Replace(netXML("nat-wan", "virbr4", "nat6", "10.4.0.1/24", "2001:db8:4::1/64"),
		"<forward mode='nat'>", "<forward mode='nat' dev='wan0'>", 1)},
	{"route", "virbr5", netXML("route", "virbr5", "route", "10.5.0.1/24", "2001:db8:5::1/64")},
	{"route-wan", "virbr6", strings.Replace(netXML("route-wan", "virbr6", "route", "10.6.0.1/24", "2001:db8:6::1/64"),
		"mode='route'", "mode='route' dev='wan0'", 1)},
	{"isolated", "virbr7", netXML("isolated", "virbr7", "isolated", "10.7.0.1/24", "2001:db8:7::1/64")},
	{"open", "virbr8", netXML("open", "virbr8", "open", "10.8.0.1/24", "2001:db8:8::1/64")},
}

// settle makes bridges and guests of the village and what is outside.
func settle(h *host.Host) map[string]host.Node {
	// The kernel answers a host with one ICMP error a second; every refusal is
	// to be seen here.
	h.Must("sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000")
	nodes := map[string]host.Node{"internet": h.Internet(), "lan": h.Lan()}
	for i, v := range village {
		four, six := fmt.Sprintf("10.%d.0", i+1), fmt.Sprintf("2001:db8:%d:", i+1)
		h.Bridge(v.bridge, four+".1/24", six+":1/64")
		nodes[v.name] = h.Guest(v.bridge, v.name, four+".10/24", six+":10/64")
	}
	return nodes
}

// address is a node's address of a family.
func address(t testing.TB, n host.Node, ipv6 bool) netip.Addr {
	t.Helper()
	addr, ok := n.(*host.Peer).Addr(ipv6)
	if !ok {
		t.Fatalf("%s has no address", n.Name())
	}
	return addr
}

// verdict is the fate of a new connection, as far as libvirt's rules and ours
// must agree on it: D4 answers TCP with a reset where libvirt sends ICMP.
func verdict(r host.Result) string {
	switch {
	case r.Err != nil:
		return "error: " + r.Err.Error()
	case r.Reached:
		return "passes"
	case r.Refused:
		return "refused"
	}
	return "no answer"
}

// patient probes up to three times where nothing comes back: the kernel leaves
// an ICMP error out while another is being sent from the same processor.
func patient(from, to host.Node, p host.Probe) (r host.Result) {
	for range 3 {
		if r = host.Try(from, to, p); !r.TimedOut {
			break
		}
	}
	return r
}

// matrix probes every pair of nodes and gives a line for each.
func matrix(t *testing.T, nodes map[string]host.Node) map[string]string {
	order := []string{"internet", "lan"}
	for _, v := range village {
		order = append(order, v.name)
	}
	var mu sync.Mutex
	got := map[string]string{}
	var wait sync.WaitGroup
	for _, from := range order {
		wait.Go(func() {
			for _, to := range order {
				if from == to || (order[0] == from && order[1] == to) || (order[1] == from && order[0] == to) {
					continue // between what is outside there is no business of ours
				}
				for _, ipv6 := range []bool{false, true} {
					line, fate := pair(t, nodes[from], nodes[to], from, to, ipv6)
					mu.Lock()
					got[line] = fate
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return got
}

// pair probes one direction with all protocols; they share a fate.
func pair(t *testing.T, from, to host.Node, fromName, toName string, ipv6 bool) (line, fate string) {
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	line = fmt.Sprintf("%-14s -> %-14s %s", fromName, toName, family)
	fates := map[string]bool{}
	for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
		r := patient(from, to, host.Probe{Proto: proto, To: netip.AddrPortFrom(address(t, to, ipv6), 0)})
		fate = verdict(r)
		if r.Reached && r.Seen.IsValid() && r.Seen.Addr() != address(t, from, ipv6) {
			fate += ", translated"
		}
		fates[fate] = true
	}
	if len(fates) != 1 {
		fate = fmt.Sprint("protocols differ: ", fates)
	}
	return line, fate
}

// TestVerdictsAreLibvirts compares what passes between all kinds of networks
// with what passes under libvirt's own rules (nftables backend, 11.3). Only the
// deliberate differences may differ, and each must be seen to.
func TestVerdictsAreLibvirts(t *testing.T) {
	t.Parallel()
	var ours, libvirts map[string]string
	t.Run("both", func(t *testing.T) {
		t.Run("ours", func(t *testing.T) {
			t.Parallel()
			r := startedRig(t)
			nodes := settle(r.Host)
			for _, v := range village {
				r.must(r.AddXML(v.xml))
			}
			ours = matrix(t, nodes)
			goldenLines(t, "testdata/verdicts.golden", ours)
		})
		t.Run("libvirt", func(t *testing.T) {
			t.Parallel()
			h := host.New(t, host.WithForwarding())
			nodes := settle(h)
			if out, err := h.RunInput(libvirtRules(), "nft", "-f", "-"); err != nil {
				t.Fatalf("loading libvirt's rules: %v\n%s", err, out)
			}
			libvirts = matrix(t, nodes)
		})
	})
	differences := 0
	for line, fate := range ours {
		why := deliberate(line)
		switch {
		case fate == libvirts[line] && why != "":
			t.Errorf("%s: %s, as with libvirt, and should differ: %s", line, fate, why)
		case fate != libvirts[line] && why == "":
			t.Errorf("%s: %s, but %s with libvirt's rules", line, fate, libvirts[line])
		case fate != libvirts[line]:
			differences++
			if fate != "refused" {
				t.Errorf("%s: %s though %s", line, fate, why)
			}
		}
	}
	t.Logf("%d pairs, %d deliberate differences", len(ours), differences)
}

// deliberate says why a pair differs from libvirt: D1, the one way out of an
// isolated or device-bound network into a routed one.
func deliberate(line string) string {
	from, to, _ := strings.Cut(line, " -> ")
	from = strings.TrimSpace(from)
	to, family, _ := strings.Cut(strings.TrimSpace(to), " ")
	// libvirt has no rules for open networks, so nothing there lets a packet in.
	bound := from == "isolated" || from == "nat-wan" || from == "route-wan"
	routed := to == "route" || (to == "nat-v6-routed" && strings.TrimSpace(family) == "IPv6")
	if bound && routed {
		return "D1: both ends decide"
	}
	return ""
}

func goldenLines(t *testing.T, file string, lines map[string]string) {
	t.Helper()
	var all []string
	for line, fate := range lines {
		all = append(all, line+"  "+fate+"\n")
	}
	slices.Sort(all)
	golden(t, file, strings.Join(all, ""))
}

// golden compares a text with a file that a person can review.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; look at it, then renew it with -update (-want +got):\n%s", file, diff)
	}
}
