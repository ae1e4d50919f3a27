package packets

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/model"
)

const (
	flagFIN, flagSYN, flagRST, flagACK = 1, 2, 4, 16

	ethernet = 14 // bytes of its header
)

// mark is in front of the number in a payload.
const mark = "vfw!"

// ofReply marks the number of a message whose reply was reset: a reset has no
// number of the reply's own.
const ofReply = 1 << 31

// message is a packet that is recognized by its number when it arrives, or when
// somebody refuses it.
type message struct {
	number   uint32
	proto    model.Proto
	state    model.State
	from, to netip.AddrPort // of ICMP, the port of from is the identifier
	answers  uint32         // the number of the message that a reply answers
}

// packet returns the message as an IP packet. It is invalid, where it should be,
// since TCP begins no connection with FIN, and an echo reply needs a request.
func (m message) packet() []byte {
	ipv6 := m.from.Addr().Is6()
	var protocol byte
	var body []byte
	switch m.proto {
	case model.TCP:
		protocol, body = unix.IPPROTO_TCP, m.segment()
	case model.UDP:
		protocol = unix.IPPROTO_UDP
		body = binary.BigEndian.AppendUint16(nil, m.from.Port())
		body = binary.BigEndian.AppendUint16(body, m.to.Port())
		body = append(body, 0, 16, 0, 0)
		body = binary.BigEndian.AppendUint32(append(body, mark...), m.number)
		binary.BigEndian.PutUint16(body[6:], checksum(pseudo(m.from.Addr(), m.to.Addr(), protocol, len(body)), body))
	case model.ICMP:
		var start uint32
		protocol, body = unix.IPPROTO_ICMP, m.echo(ipv6)
		if ipv6 {
			protocol = unix.IPPROTO_ICMPV6
			start = pseudo(m.from.Addr(), m.to.Addr(), protocol, len(body))
		}
		binary.BigEndian.PutUint16(body[2:], checksum(start, body))
	}
	return header(m.from.Addr(), m.to.Addr(), oddity{protocol: protocol}, uint16(m.number), body)
}

// segment returns one of TCP whose sequence number is the message's number.
func (m message) segment() []byte {
	flags := map[model.State]byte{model.New: flagSYN, model.Reply: flagSYN | flagACK, model.Invalid: flagFIN}[m.state]
	b := segment(m.from.Addr(), m.to.Addr(), m.from.Port(), m.to.Port(), flags, 5, true)
	binary.BigEndian.PutUint32(b[4:], m.number)
	binary.BigEndian.PutUint32(b[8:], 0)
	if m.state == model.Reply {
		binary.BigEndian.PutUint32(b[8:], m.answers+1)
	}
	binary.BigEndian.PutUint16(b[16:], 0)
	binary.BigEndian.PutUint16(b[16:], checksum(pseudo(m.from.Addr(), m.to.Addr(), unix.IPPROTO_TCP, len(b)), b))
	return b
}

func (m message) echo(ipv6 bool) []byte {
	kind := map[bool]byte{false: 8, true: 128}[ipv6]
	id := m.from.Port()
	if m.state != model.New {
		kind = map[bool]byte{false: 0, true: 129}[ipv6]
		id = m.to.Port()
	}
	b := binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0}, id)
	b = binary.BigEndian.AppendUint16(b, 1)
	return binary.BigEndian.AppendUint32(append(b, mark...), m.number)
}

// frame puts an Ethernet header in front of a packet.
func frame(from, to net.HardwareAddr, packet []byte) []byte {
	kind := []byte{0x08, 0x00}
	if packet[0]>>4 == 6 {
		kind = []byte{0x86, 0xdd}
	}
	return append(append(append(append([]byte(nil), to...), from...), kind...), packet...)
}

// heard is a packet as a machine gets it.
type heard struct {
	number   uint32
	from, to netip.AddrPort
	refused  string // how: this is the refusal of the packet with the number
	mac      net.HardwareAddr
}

// read reads a frame; ok is false for one that is no numbered packet.
func read(frame []byte) (h heard, ok bool) {
	if len(frame) < ethernet {
		return h, false
	}
	h, ok = readPacket(frame[ethernet:])
	h.mac = net.HardwareAddr(frame[6:12])
	return h, ok
}

func readPacket(b []byte) (h heard, ok bool) {
	const addresses, addresses6, size6 = 12, 8, 40
	var protocol byte
	var body []byte
	var from, to netip.Addr
	switch {
	case len(b) > 20 && b[0]>>4 == 4:
		from, to = netip.AddrFrom4([4]byte(b[addresses:])), netip.AddrFrom4([4]byte(b[addresses+4:]))
		protocol, body = b[9], b[min(len(b), int(b[0]&0xf)*4):]
	case len(b) > size6 && b[0]>>4 == 6:
		from, to = netip.AddrFrom16([16]byte(b[addresses6:])), netip.AddrFrom16([16]byte(b[addresses6+16:]))
		protocol, body = b[6], b[size6:]
	}
	if len(body) < 8 {
		return h, false
	}
	first, second := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	h.from, h.to = netip.AddrPortFrom(from, first), netip.AddrPortFrom(to, second)
	switch protocol {
	case unix.IPPROTO_TCP:
		return h.readSegment(body)
	case unix.IPPROTO_UDP:
		return h.readMark(body)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return h.readICMP(protocol, body)
	}
	return h, false
}

// readSegment finds the number of the segment, or of the one that it resets: RFC
// 9293, 3.5.2.
func (h heard) readSegment(b []byte) (heard, bool) {
	if len(b) < 14 {
		return h, false
	}
	h.number = binary.BigEndian.Uint32(b[4:])
	if flags := b[13]; flags&flagRST != 0 {
		h.refused = model.TCPReset
		if flags&flagACK != 0 {
			h.number = binary.BigEndian.Uint32(b[8:]) - 1
		} else {
			h.number = ofReply | (h.number - 1) // it had acknowledged the number before
		}
	}
	return h, true
}

func (h heard) readMark(b []byte) (heard, bool) {
	if len(b) < 16 || string(b[8:12]) != mark {
		return h, false
	}
	h.number = binary.BigEndian.Uint32(b[12:])
	return h, true
}

// readICMP reads echo messages, and errors, which quote what they are about.
func (h heard) readICMP(protocol byte, b []byte) (heard, bool) {
	id := binary.BigEndian.Uint16(b[4:])
	h.from, h.to = netip.AddrPortFrom(h.from.Addr(), id), netip.AddrPortFrom(h.to.Addr(), id)
	kind, code := b[0], b[1]
	switch {
	case protocol == unix.IPPROTO_ICMP && (kind == 0 || kind == 8), protocol == unix.IPPROTO_ICMPV6 && kind>>1 == 64:
		return h.readMark(b)
	case protocol == unix.IPPROTO_ICMP && kind == 3, protocol == unix.IPPROTO_ICMPV6 && kind == 1:
		quoted, ok := readPacket(b[8:])
		h.number = quoted.number
		h.refused = fmt.Sprintf("ICMP type %d code %d", kind, code)
		if kind == 3 && code == 3 || kind == 1 && code == 4 {
			h.refused = model.PortUnreachable
		}
		return h, ok
	}
	return h, false
}
