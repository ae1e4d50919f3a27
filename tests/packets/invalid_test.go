package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// ear hears all packets that reach a node, whatever they are.
type ear struct{ fd int }

func listen(t *testing.T, at *host.Peer) ear {
	t.Helper()
	e := ear{-1}
	err := at.Do(func() (err error) {
		e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.BigEndian.Uint16([]byte{0, 3}))<<8)
		return errors.Join(err, unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}))
	})
	rig.Must(t, err)
	t.Cleanup(func() { unix.Close(e.fd) })
	return e
}

// sources returns the source of each numbered packet that comes, until it has
// heard want of them after the one with the last number, or time is up.
func (e ear) sources(last uint16, want int) map[uint16]netip.Addr {
	out := map[uint16]netip.Addr{}
	b := make([]byte, 1<<16)
	deadline := time.Now().Add(host.Patient(2 * time.Second))
	for time.Now().Before(deadline) {
		n, from, err := unix.Recvfrom(e.fd, b, 0)
		if link, ok := from.(*unix.SockaddrLinklayer); err != nil || !ok || link.Pkttype == unix.PACKET_OUTGOING || n < 20 {
			if _, all := out[last]; all && len(out) >= want {
				return out
			}
			continue
		}
		switch b[0] >> 4 {
		case 4:
			out[binary.BigEndian.Uint16(b[4:])] = netip.AddrFrom4([4]byte(b[12:16]))
		case 6:
			out[binary.BigEndian.Uint16(b[2:])] = netip.AddrFrom16([16]byte(b[8:24]))
		}
	}
	return out
}

// emit sends raw packets from a node.
func emit(t *testing.T, from *host.Peer, packets ...[]byte) {
	t.Helper()
	err := from.Do(func() error {
		for _, p := range packets {
			family := unix.AF_INET
			var to unix.Sockaddr = &unix.SockaddrInet4{}
			if p[0]>>4 == 6 {
				family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])}
			} else {
				to.(*unix.SockaddrInet4).Addr = [4]byte(p[16:20])
			}
			fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				return os.NewSyscallError("socket", err)
			}
			err = unix.Sendto(fd, p, 0, to)
			unix.Close(fd)
			if err != nil {
				return fmt.Errorf("sending %x: %w", p, err)
			}
		}
		return nil
	})
	rig.Must(t, err)
}

const lastNumber = 30000

// oddPackets returns all oddities from one node to another, and a common packet last.
// Those that cannot arrive have no name.
func oddPackets(t *testing.T, from, to host.Node, ipv6 bool) (packets [][]byte, names map[uint16]string) {
	t.Helper()
	source, target := rig.Address(t, from, ipv6), rig.Address(t, to, ipv6)
	names = map[uint16]string{}
	for i, o := range oddities(ipv6) {
		number := uint16(1000 + i)
		names[number] = o.name
		if o.fragment != 0 {
			names[number] = ""
		}
		packets = append(packets, header(source, target, o, number, o.body(source, target)))
	}
	names[lastNumber] = "the last"
	udp := oddity{protocol: unix.IPPROTO_UDP}
	return append(packets, header(source, target, udp, lastNumber, []byte{0x13, 0x88, 0x13, 0x89, 0, 12, 0, 0, 1, 2, 3, 4})), names
}

// TestInvalidPacketsKeepTheirAddressInside is D11: from a translated subnet no
// packet leaves with the guest's own address that conntrack does not follow or
// was configured not to. Packets to a routed network, and from one or from an
// IPv6 subnet without NAT, have libvirt's verdict: they pass.
func TestInvalidPacketsKeepTheirAddressInside(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.Bridge("virbr1", "10.1.0.1/24", "2001:db8:1::1/64")
	internet := r.Internet()
	r.OK(r.AddXML(rig.NatXML("<nat ipv6='yes'/>")))
	r.OK(r.AddXML(rig.NetXML("routed", "virbr1", "route", "10.1.0.1/24", "2001:db8:1::1/64")))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
	routed := r.Guest("virbr1", "routed", "10.1.0.10/24", "2001:db8:1::10/64")
	inside := func(a netip.Addr) bool {
		return a == rig.Address(t, guest, false) || a == rig.Address(t, guest, true)
	}
	away := func(when string) {
		t.Helper()
		for _, ipv6 := range []bool{false, true} {
			outside := listen(t, internet)
			packets, names := oddPackets(t, guest, internet, ipv6)
			emit(t, guest, packets[:len(packets)-1]...)
			last, _ := oddPackets(t, routed, internet, ipv6)
			emit(t, routed, last[len(last)-1])
			got := outside.sources(lastNumber, 0)
			for number, from := range got {
				if inside(from) {
					t.Errorf("%s, IPv6 %v: %s left with the address %s", when, ipv6, names[number], from)
				}
			}
			if !got[lastNumber].IsValid() || (when == "tracked" && len(got) < 3) {
				t.Errorf("%s, IPv6 %v: only %v arrived", when, ipv6, got)
			}
		}
	}
	away("tracked")
	r.Must("nft", "add table inet foreign { chain raw { type filter hook prerouting priority raw; iifname virbr0 notrack; }; }")
	away("not tracked")
	passes(t, guest, routed, true)
	r.Must("nft", "delete table inet foreign")
	for _, ipv6 := range []bool{false, true} {
		passes(t, guest, routed, ipv6)
		passes(t, routed, internet, ipv6)
	}
	outOfWindow(t, guest, internet)
	r.OK(r.AddXML(rig.NatXML(""), "Replace", true))
	passes(t, guest, internet, true)
}

// passes sends the corpus where it passes as it is: what arrives keeps its
// source, unless it is translated on the way, and all of it arrives.
func passes(t *testing.T, from, to *host.Peer, ipv6 bool) {
	t.Helper()
	there := listen(t, to)
	packets, names := oddPackets(t, from, to, ipv6)
	emit(t, from, packets...)
	got := there.sources(lastNumber, len(packets)-2)
	for number, name := range names {
		if name != "" && !got[number].IsValid() {
			t.Errorf("%s to %s, IPv6 %v: %s did not arrive", from.Name(), to.Name(), ipv6, name)
		}
	}
}

// outOfWindow resets real connections with a number that is not in their window.
func outOfWindow(t *testing.T, guest, internet *host.Peer) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		target := netip.AddrPortFrom(rig.Address(t, internet, ipv6), 7070)
		var l net.Listener
		err := internet.Do(func() (err error) {
			l, err = net.Listen("tcp", target.String())
			return err
		})
		rig.Must(t, err)
		defer l.Close()
		var c net.Conn
		err = guest.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", target.String(), host.Patient(rig.CallTimeout))
			return err
		})
		rig.Must(t, err)
		defer c.Close()
		local := netip.MustParseAddrPort(c.LocalAddr().String())
		outside := listen(t, internet)
		reset := header(local.Addr(), target.Addr(), oddity{protocol: unix.IPPROTO_TCP}, 2000, segment(local.Addr(), target.Addr(), local.Port(), target.Port(), 4, 5, true))
		packets, _ := oddPackets(t, guest, internet, ipv6)
		emit(t, guest, reset, packets[len(packets)-1])
		if from := outside.sources(lastNumber, 0)[2000]; from == local.Addr() {
			t.Errorf("a reset outside of the window left with the address %s", from)
		}
	}
}
