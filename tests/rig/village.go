package rig

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Village is a network of every kind on one host, a guest in each, and what is
// outside. Where the text says v6, the network has IPv6 too.
var Village = []struct{ Name, Bridge, XML string }{
	{"nat", "virbr1", NetXML("nat", "virbr1", "nat6", "10.1.0.1/24", "2001:db8:1::1/64")},
	{"nat2", "virbr2", NetXML("nat2", "virbr2", "nat6", "10.2.0.1/24", "2001:db8:2::1/64")},
	{"nat-v6-routed", "virbr3", NetXML("nat-v6-routed", "virbr3", "nat", "10.3.0.1/24", "2001:db8:3::1/64")},
	{"nat-wan", "virbr4", strings.Replace(NetXML("nat-wan", "virbr4", "nat6", "10.4.0.1/24", "2001:db8:4::1/64"),
		"<forward mode='nat'>", "<forward mode='nat' dev='wan0'>", 1)},
	{"route", "virbr5", NetXML("route", "virbr5", "route", "10.5.0.1/24", "2001:db8:5::1/64")},
	{"route-wan", "virbr6", strings.Replace(NetXML("route-wan", "virbr6", "route", "10.6.0.1/24", "2001:db8:6::1/64"),
		"mode='route'", "mode='route' dev='wan0'", 1)},
	{"isolated", "virbr7", NetXML("isolated", "virbr7", "isolated", "10.7.0.1/24", "2001:db8:7::1/64")},
	{"open", "virbr8", NetXML("open", "virbr8", "open", "10.8.0.1/24", "2001:db8:8::1/64")},
}

// BuildVillage makes bridges and guests of the village and what is outside.
func BuildVillage(h *host.Host) map[string]host.Node {
	AnswerEverything(h)
	nodes := map[string]host.Node{"internet": h.Internet(), "lan": h.Lan()}
	for i, v := range Village {
		four, six := fmt.Sprintf("10.%d.0", i+1), fmt.Sprintf("2001:db8:%d:", i+1)
		h.Bridge(v.Bridge, four+".1/24", six+":1/64")
		nodes[v.Name] = h.Guest(v.Bridge, v.Name, four+".10/24", six+":10/64")
	}
	return nodes
}

// Matrix probes every pair of nodes and returns what became of it, by a line for
// each pair.
func Matrix(t testing.TB, nodes map[string]host.Node) map[string]string {
	order := []string{"internet", "lan"}
	for _, v := range Village {
		order = append(order, v.Name)
	}
	var mu sync.Mutex
	got := map[string]string{}
	var wait sync.WaitGroup
	for _, from := range order {
		wait.Go(func() {
			for _, to := range order {
				if from == to || (order[0] == from && order[1] == to) || (order[1] == from && order[0] == to) {
					continue // pairs outside the host are not tested
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
func pair(t testing.TB, from, to host.Node, fromName, toName string, ipv6 bool) (line, fate string) {
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	line = fmt.Sprintf("%-14s -> %-14s %s", fromName, toName, family)
	fates := map[string]bool{}
	for _, proto := range []host.Proto{host.TCP, host.UDP, host.ICMP} {
		r := TryPatiently(from, to, host.Probe{Proto: proto, To: netip.AddrPortFrom(Address(t, to, ipv6), 0)})
		fate = Verdict(r)
		if r.Reached && r.Seen.IsValid() && r.Seen.Addr() != Address(t, from, ipv6) {
			fate += ", translated"
		}
		fates[fate] = true
	}
	if len(fates) != 1 {
		fate = fmt.Sprint("protocols differ: ", fates)
	}
	return line, fate
}
