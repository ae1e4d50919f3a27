package packets

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"golang.org/x/sys/unix"
)

// oddity is a packet of the corpus of those that conntrack may call invalid: it
// belongs to no connection, or is no packet that its protocol knows.
type oddity struct {
	name     string
	protocol byte
	fragment uint16 // IPv4's flags and offset; not 0 for one of which the rest never comes
	body     func(from, to netip.Addr) []byte
}

// oddities returns the corpus for one family.
func oddities(ipv6 bool) (all []oddity) {
	add := func(name string, protocol byte, body func(from, to netip.Addr) []byte) {
		all = append(all, oddity{name: name, protocol: protocol, body: body})
	}
	for name, flags := range map[string]byte{
		"RST": 4, "RST ACK": 0x14, "FIN": 1, "FIN ACK": 0x11, "SYN ACK": 0x12, "SYN FIN": 3, "SYN RST": 6,
		"no flags": 0, "christmas tree": 0x29, "all flags": 0xff, "ACK": 0x10, "URG": 0x20, "SYN": 2,
	} {
		add("TCP "+name, unix.IPPROTO_TCP, tcp(flags, 5, true))
	}
	add("TCP with a bad checksum", unix.IPPROTO_TCP, tcp(2, 5, false))
	add("TCP with too short a header", unix.IPPROTO_TCP, tcp(2, 2, true))
	add("TCP with a header beyond its end", unix.IPPROTO_TCP, tcp(2, 15, true))
	add("TCP cut", unix.IPPROTO_TCP, cut(tcp(4, 5, true), 9))
	add("UDP with a bad checksum", unix.IPPROTO_UDP, udp(12, 0x1234))
	add("UDP beyond its end", unix.IPPROTO_UDP, udp(4000, 0))
	add("UDP cut", unix.IPPROTO_UDP, cut(udp(12, 0), 5))
	add("UDP", unix.IPPROTO_UDP, udp(12, 0))
	add("UDP-Lite with a bad coverage", unix.IPPROTO_UDPLITE, udp(5, 0x1234))
	add("UDP-Lite without a checksum", unix.IPPROTO_UDPLITE, udp(8, 0))
	add("UDP-Lite cut", unix.IPPROTO_UDPLITE, cut(udp(8, 0), 3))
	for name, chunk := range map[string]byte{"DATA": 0, "INIT ACK": 2, "ABORT": 6, "SHUTDOWN COMPLETE": 14, "COOKIE ECHO": 10, "HEARTBEAT ACK": 5, "unknown": 200} {
		add("SCTP "+name, unix.IPPROTO_SCTP, sctp(chunk, 0x01020304, true))
	}
	add("SCTP INIT with a tag", unix.IPPROTO_SCTP, sctp(1, 0x01020304, true))
	add("SCTP with a bad checksum", unix.IPPROTO_SCTP, sctp(1, 0, false))
	add("SCTP cut", unix.IPPROTO_SCTP, cut(sctp(1, 0, true), 10))
	for kind := range byte(10) {
		add("DCCP", unix.IPPROTO_DCCP, dccp(kind))
	}
	add("GRE", 47, raw(0x30, 0x01, 0x88, 0x0b, 0, 0, 0, 1))
	add("an unknown protocol", 253, raw(1, 2, 3, 4))
	add("ESP", 50, raw(0, 0, 0, 9, 0, 0, 0, 1))
	return append(all, errorsOf(ipv6)...)
}

// errorsOf returns the oddities of ICMP, and fragments.
func errorsOf(ipv6 bool) (all []oddity) {
	protocol, kinds := byte(unix.IPPROTO_ICMP), []byte{0, 3, 4, 5, 11, 12, 14, 16, 18, 41, 250}
	if ipv6 {
		protocol, kinds = unix.IPPROTO_ICMPV6, []byte{1, 2, 3, 4, 100, 129, 135, 136, 137, 140, 250}
	}
	for _, kind := range kinds {
		all = append(all, oddity{name: "ICMP without a request", protocol: protocol, body: icmp(ipv6, kind, false)})
		all = append(all, oddity{name: "ICMP that quotes a stranger", protocol: protocol, body: icmp(ipv6, kind, true)})
		all = append(all, oddity{name: "ICMP cut", protocol: protocol, body: cut(icmp(ipv6, kind, false), 6)})
	}
	if ipv6 {
		// A fragment that is the whole packet, and one that the rest never follows:
		// under another number, lest the next whole one be taken for its rest.
		fragment := func(more byte) func(from, to netip.Addr) []byte {
			return func(from, to netip.Addr) []byte {
				return append([]byte{unix.IPPROTO_TCP, 0, 0, more, 0, 0, 0, 7 + more}, append(tcp(4, 5, true)(from, to), 0, 0, 0, 0)...)
			}
		}
		options := func(from, to netip.Addr) []byte {
			return append([]byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, tcp(4, 5, true)(from, to)...)
		}
		return append(all, oddity{name: "atomic fragment", protocol: 44, body: fragment(0)},
			oddity{name: "first fragment", protocol: 44, body: fragment(1), fragment: 1},
			oddity{name: "RST behind destination options", protocol: 60, body: options})
	}
	return append(all, oddity{name: "first fragment", protocol: unix.IPPROTO_TCP, body: tcp(4, 5, true), fragment: 0x2000},
		oddity{name: "last fragment", protocol: unix.IPPROTO_UDP, body: raw(1, 2, 3, 4, 5, 6, 7, 8), fragment: 3})
}

func raw(body ...byte) func(from, to netip.Addr) []byte {
	return func(netip.Addr, netip.Addr) []byte { return body }
}

func cut(body func(from, to netip.Addr) []byte, size int) func(from, to netip.Addr) []byte {
	return func(from, to netip.Addr) []byte { return body(from, to)[:size] }
}

func tcp(flags, words byte, right bool) func(from, to netip.Addr) []byte {
	return func(from, to netip.Addr) []byte {
		return segment(from, to, 0x3039+uint16(flags), 80, flags, words, right)
	}
}

// segment is one of TCP without data.
func segment(from, to netip.Addr, source, port uint16, flags, words byte, right bool) []byte {
	b := binary.BigEndian.AppendUint16(nil, source)
	b = binary.BigEndian.AppendUint16(b, port)
	b = append(b, 0x7f, 0, 0, 1, 0x7f, 0, 0, 2, words<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	sum := checksum(pseudo(from, to, unix.IPPROTO_TCP, len(b)), b)
	if !right {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[16:], sum)
	return b
}

// udp has 4 bytes of payload; of UDP-Lite the length is the coverage.
func udp(length, sum uint16) func(from, to netip.Addr) []byte {
	return func(netip.Addr, netip.Addr) []byte {
		b := []byte{0x30, 0x39, 0x00, 0x50}
		b = binary.BigEndian.AppendUint16(b, length)
		b = binary.BigEndian.AppendUint16(b, sum)
		return append(b, 1, 2, 3, 4)
	}
}

func sctp(chunk byte, tag uint32, right bool) func(from, to netip.Addr) []byte {
	return func(netip.Addr, netip.Addr) []byte {
		b := []byte{0x30, chunk, 0x00, 0x50}
		b = binary.BigEndian.AppendUint32(b, tag)
		b = append(b, 0, 0, 0, 0, chunk, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1)
		if right {
			binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		}
		return b
	}
}

func dccp(kind byte) func(from, to netip.Addr) []byte {
	return func(netip.Addr, netip.Addr) []byte {
		return append([]byte{0x30, kind, 0x00, 0x50, 6, 0, 0, 0, kind<<1 | 1, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 8)...)
	}
}

// icmp has the quoted header of a TCP packet between others where quote is set.
func icmp(ipv6 bool, kind byte, quote bool) func(from, to netip.Addr) []byte {
	return func(from, to netip.Addr) []byte {
		b := []byte{kind, 0, 0, 0, 0x12, kind, 0, 1}
		if quote {
			b = append(b, header(to, from, oddity{protocol: unix.IPPROTO_TCP}, 7, segment(to, from, 4444, 443, 2, 5, true))...)
		}
		var start uint32
		if ipv6 {
			start = pseudo(from, to, unix.IPPROTO_ICMPV6, len(b))
		}
		binary.BigEndian.PutUint16(b[2:], checksum(start, b))
		return b
	}
}

// header puts an IP header in front, with a number that is known again: the ID
// of IPv4, the flow label of IPv6.
func header(from, to netip.Addr, o oddity, number uint16, body []byte) []byte {
	var b []byte
	if from.Is6() {
		b = binary.BigEndian.AppendUint32(nil, 6<<28|uint32(number))
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		b = append(b, o.protocol, 64)
	} else {
		b = binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(body)))
		b = binary.BigEndian.AppendUint16(b, number)
		b = binary.BigEndian.AppendUint16(b, o.fragment)
		b = append(b, 64, o.protocol, 0, 0)
	}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	if from.Is4() {
		binary.BigEndian.PutUint16(b[10:], checksum(0, b))
	}
	return append(b, body...)
}

func pseudo(from, to netip.Addr, protocol byte, size int) uint32 {
	b := append(from.AsSlice(), to.AsSlice()...)
	return uint32(^checksum(0, binary.BigEndian.AppendUint32(b, uint32(size)))) + uint32(protocol)
}

func checksum(sum uint32, b []byte) uint16 {
	for i, c := range b {
		sum += uint32(c) << (8 * ((i + 1) % 2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
