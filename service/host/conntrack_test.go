package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	hosts "github.com/virtfirewalld/virtfirewalld/tests/host"
)

// flow is a UDP conversation of a guest with a server, from one socket.
type flow struct {
	t      *testing.T
	client *net.UDPConn
	server *net.UDPConn
}

func newFlow(t *testing.T, guest, server hosts.Node, to string) *flow {
	t.Helper()
	f := &flow{t: t}
	at := netip.MustParseAddrPort(to)
	err := server.Do(func() (err error) {
		f.server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		err = guest.Do(func() (err error) {
			f.client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.client.Close(); f.server.Close() })
	return f
}

// source sends a packet and returns the address that the server sees.
func (f *flow) source() netip.Addr {
	f.t.Helper()
	if _, err := f.client.Write([]byte("hello")); err != nil {
		f.t.Fatal(err)
	}
	f.server.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, from, err := f.server.ReadFromUDPAddrPort(make([]byte, 64))
	if err != nil {
		f.t.Fatal(err)
	}
	return from.Addr().Unmap()
}

func (f *flow) want(when string, source string) {
	f.t.Helper()
	if got := f.source(); got != netip.MustParseAddr(source) {
		f.t.Errorf("%s the server sees %s, want %s", when, got, source)
	}
}

// tracking makes a host with two guest networks, so that connections are
// tracked and nothing is translated.
func tracking(t *testing.T) (h *hosts.Host, one, two *hosts.Peer) {
	t.Helper()
	h = hosts.New(t, hosts.WithForwarding())
	h.Bridge("virbr0", "192.168.122.1/24", "2001:db8:1::1/64")
	h.Bridge("virbr1", "192.168.123.1/24", "2001:db8:2::1/64")
	one = h.Guest("virbr0", "one", "192.168.122.2/24", "2001:db8:1::2/64")
	two = h.Guest("virbr1", "two", "192.168.123.2/24", "2001:db8:2::2/64")
	nft(t, h, "table inet t { chain c { type filter hook forward priority 0; ct state new accept; }; }")
	return h, one, two
}

func nft(t *testing.T, h *hosts.Host, text string) {
	t.Helper()
	if _, err := h.RunInput(text, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

const masquerade = `table inet nat { chain c { type nat hook postrouting priority 100;
	ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 masquerade
	ip6 saddr 2001:db8:1::/64 ip6 daddr != 2001:db8:1::/64 masquerade
}; }`

var nat = network.Network{Name: "default", Bridge: "virbr0", Mode: network.ModeNAT,
	Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.122.1/24"), netip.MustParsePrefix("2001:db8:1::1/64")}}

func natBoth() network.Network { n := nat; n.NATIPv6 = true; return n }

// guestsOf looks the bridges up in the namespace of the calling thread.
func guestsOf(nets []network.Network) (out []Guests) {
	for _, n := range nets {
		g := Guests{Network: n}
		if link, err := net.InterfaceByName(n.Bridge); err == nil {
			g.Index = link.Index
		}
		out = append(out, g)
	}
	return out
}

// meet makes guests of virbr0 neighbours of the host, as if they had asked it for an
// address.
func meet(h *hosts.Host, dev string, addrs ...string) {
	for i, a := range addrs {
		h.Must("ip", "neigh", "replace", a, "lladdr", fmt.Sprintf("02:00:00:00:01:%02x", i), "dev", dev, "nud", "permanent")
	}
}

// again runs Retranslate on a host and returns how many it deleted.
func again(t *testing.T, h *hosts.Host, nets ...network.Network) (deleted int) {
	t.Helper()
	own := func() (all []netip.Addr) {
		for _, text := range []string{"192.168.122.1", "192.168.123.1", "203.0.113.2", "2001:db8:1::1"} {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	err := h.Do(func() (err error) {
		deleted, err = Retranslate(context.Background(), guestsOf(nets), own)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return deleted
}

func TestFlowThatBeganTooEarlyIsTranslated(t *testing.T) {
	t.Parallel()
	h, one, two := tracking(t)
	internet := h.Internet()
	early := newFlow(t, one, internet, "203.0.113.1:7000")
	early6 := newFlow(t, one, internet, "[2001:db8:ffff::1]:7000")
	stranger := newFlow(t, two, internet, "203.0.113.1:7001")
	toHost := newFlow(t, one, h, "203.0.113.2:7002")
	for f, source := range map[*flow]string{early: "192.168.122.2", early6: "2001:db8:1::2", stranger: "192.168.123.2", toHost: "192.168.122.2"} {
		f.want("before there are rules", source)
	}
	nft(t, h, masquerade)
	early.want("with the connection of before", "192.168.122.2")
	early6.want("with the connection of before", "2001:db8:1::2")

	if n := again(t, h, nat); n != 1 {
		t.Errorf("%d connections deleted, want the one of IPv4", n)
	}
	early.want("once it is forgotten", "203.0.113.2")
	early6.want("of a family that is not translated", "2001:db8:1::2")
	if n := again(t, h, natBoth()); n != 1 {
		t.Errorf("%d connections deleted, want the one of IPv6", n)
	}
	early6.want("once it is forgotten", "2001:db8:ffff::2")
	if n := again(t, h, natBoth()); n != 0 {
		t.Errorf("%d connections deleted, though all are translated", n)
	}
	stranger.want("of another network", "192.168.123.2")
}

func TestConnectionThatBeganTooEarlyIsTranslated(t *testing.T) {
	t.Parallel()
	h, one, _ := tracking(t)
	internet := h.Internet()
	// The server's answers are lost at first, so that the connection is still
	// being made when the rules come.
	const back = "add table inet back; add chain inet back c { type filter hook forward priority 20; }; flush chain inet back c; add rule inet back c iifname wan0 "
	nft(t, h, back+"drop")
	var listener *net.TCPListener
	if err := internet.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: 7000})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connected := make(chan error, 1)
	go func() {
		connected <- one.Do(func() error {
			conn, err := net.DialTimeout("tcp4", "203.0.113.1:7000", 20*time.Second)
			if err == nil {
				defer conn.Close()
			}
			return err
		})
	}()
	awaitEntry(t, h, "SYN_SENT src=192.168.122.2", "SYN_RECV src=192.168.122.2")
	nft(t, h, masquerade)
	if n := again(t, h, nat); n != 1 {
		t.Errorf("%d connections deleted, want 1", n)
	}
	nft(t, h, back+"ct state != established drop")
	listener.SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal("no translated connection: ", err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().(*net.TCPAddr).IP.String(); got != "203.0.113.2" {
		t.Errorf("the server sees %s", got)
	}
	if err := <-connected; err != nil {
		t.Error("the guest: ", err)
	}
}

// awaitEntry waits until one of the texts is in the list of connections.
func awaitEntry(t *testing.T, h *hosts.Host, any ...string) {
	t.Helper()
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out := h.Must("conntrack", "-L", "-p", "tcp")
		if slices.ContainsFunc(any, func(text string) bool { return strings.Contains(out, text) }) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("none of %q among the connections:\n%s", any, out)
		}
	}
}

func TestConnectionsThatStay(t *testing.T) {
	t.Parallel()
	h, _, _ := tracking(t)
	meet(h, "virbr0", "192.168.122.2", "192.168.122.3", "192.168.122.4", "192.168.122.5")
	h.Must("ip", "route", "add", "10.9.0.0/16", "via", "192.168.122.2")
	create := func(args ...string) {
		h.Must(append([]string{"conntrack", "-I", "-p", "udp", "--timeout", "600", "--sport", "1000", "--dport", "53"}, args...)...)
	}
	pair := func(from, to string, more ...string) { create(append([]string{"-s", from, "-d", to}, more...)...) }
	pair("192.168.122.2", "192.168.122.3")                       // inside the network
	pair("192.168.122.2", "10.9.9.9")                            // to a subnet behind a guest
	pair("192.168.122.2", "192.168.122.1")                       // to the host
	pair("192.168.122.2", "203.0.113.2")                         // to another address of the host
	pair("192.168.122.1", "203.0.113.1")                         // from the host
	pair("192.168.122.2", "224.0.0.251")                         // multicast
	pair("192.168.122.2", "255.255.255.255")                     // broadcast
	pair("192.168.123.2", "203.0.113.1")                         // of another network
	pair("203.0.113.1", "192.168.122.2")                         // from outside
	pair("192.168.122.2", "203.0.113.1", "--src-nat", "1.2.3.4") // translated
	pair("192.168.122.3", "203.0.113.1", "-w", "7")              // in a zone of somebody else
	// Redirected to a proxy on the host: what counts is where it really goes.
	create("-s", "192.168.122.4", "-d", "198.51.100.9", "--reply-src", "203.0.113.2", "--reply-dst", "192.168.122.4",
		"--reply-port-src", "53", "--reply-port-dst", "1000")
	behind := nat
	behind.Routes = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
	routed := network.Network{Name: "routed", Mode: network.ModeRoute, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.123.1/24")}}
	if n := again(t, h, behind, routed); n != 0 {
		t.Errorf("%d connections deleted; left are\n%s", n, h.Must("conntrack", "-L"))
	}

	pair("10.9.1.1", "203.0.113.1")      // from behind a guest
	pair("192.168.122.5", "203.0.113.1") // from a guest
	pair("192.168.122.5", "192.168.123.2")
	// What nothing says of that it came from the bridge.
	pair("192.168.122.6", "203.0.113.1")
	pair("192.168.122.7", "203.0.113.1")
	meet(h, "virbr0", "192.168.122.7")
	meet(h, "virbr1", "192.168.122.7")
	absent := behind
	absent.Bridge = "virbr9"
	if n := again(t, h, absent, routed); n != 0 {
		t.Errorf("%d connections deleted of a network without a bridge", n)
	}
	if n := again(t, h, behind, routed); n != 3 {
		t.Errorf("%d connections deleted, want 3; left are\n%s", n, h.Must("conntrack", "-L"))
	}
}

// The kernel leaves translated connections out of what it lists, but older ones
// do not.
func TestTranslatedConnectionDoesNotMatch(t *testing.T) {
	m := newMatcher([]Guests{{Network: nat}}, none)
	guest, server, host := netip.MustParseAddr("192.168.122.2"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	if !m.matches(connection{from: guest, to: server, replyTo: guest}) {
		t.Error("an untranslated connection does not match")
	}
	if m.matches(connection{from: guest, to: server, replyTo: host}) {
		t.Error("a translated connection matches")
	}
}

func TestConnectionsAreLeftWithoutTime(t *testing.T) {
	t.Parallel()
	h, _, _ := tracking(t)
	h.Must("conntrack", "-I", "-p", "udp", "--timeout", "600", "--sport", "1", "--dport", "53", "-s", "192.168.122.2", "-d", "203.0.113.1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := h.Do(func() error {
		n, err := Retranslate(ctx, []Guests{{Network: nat}}, none)
		if n != 0 {
			return fmt.Errorf("%d connections deleted", n)
		}
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Error("error is ", err)
	}
}

// A connection with the same ends as one that has just ended is not that one.
func TestOnlyTheConnectionThatWasSeenIsDeleted(t *testing.T) {
	t.Parallel()
	h, one, _ := tracking(t)
	f := newFlow(t, one, h.Internet(), "203.0.113.1:7000")
	f.want("at first", "192.168.122.2")
	err := h.Do(func() error {
		m := newMatcher([]Guests{{Network: nat}}, none)
		seen, err := untranslated(context.Background(), m)
		if err != nil || len(seen) != 1 {
			return fmt.Errorf("%d connections seen: %w", len(seen), errors.Join(err, os.ErrInvalid))
		}
		stale := seen[0].clone()
		stale.id[3] ^= 1
		if gone, err := stale.delete(nil); gone || err != nil {
			return fmt.Errorf("one with another ID: %v, %w", gone, err)
		}
		if gone, err := seen[0].delete(nil); !gone || err != nil {
			return fmt.Errorf("the one itself: %v, %w", gone, err)
		}
		gone, err := seen[0].delete(nil)
		if gone || err != nil {
			return fmt.Errorf("once more: %v, %w", gone, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzParseConnection(f *testing.F) {
	tuple := func(source, destination byte) []byte {
		ip := append([]byte{20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, source}, 8, 0, 2, 0, 10, 0, 0, destination)
		return append([]byte{24, 0, 1, 0x80}, ip...)
	}
	f.Add(append(append(tuple(1, 2), tuple(2, 1)...), 8, 0, 12, 0, 1, 2, 3, 4))
	f.Add([]byte{4, 0, 1, 0x80})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseConnection(b)
		if ok && (!c.from.IsValid() || !c.to.IsValid() || !c.replyTo.IsValid() || len(c.id) != 4) {
			t.Errorf("incomplete: %+v", c)
		}
	})
}
