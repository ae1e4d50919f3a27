package dbus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// filteredSocket is the socket to the bus. It keeps from godbus what any local
// user can send, and godbus cannot cope with:
//   - godbus ends the connection at a message that it cannot decode, and there
//     are valid ones (a dictionary of arrays of structs is enough);
//   - some of these make it panic in a goroutine of its own;
//   - variants take a hundred times their size once they are decoded;
//   - its own unix transport accepts file descriptors and never closes them.
//     Over this socket the bus passes none.
type filteredSocket struct {
	conn    net.Conn
	in      *bufio.Reader
	serials serials

	// framed is true once messages follow the lines of the handshake. It is set
	// before godbus starts to read messages.
	framed bool

	// Only the goroutine that reads uses these.
	message []byte // the last message that passed the filter
	rest    []byte // the part of it that is still to be read

	mu sync.Mutex // one message is written at a time
}

// maxCallBytes is the largest body of a call or signal that is decoded: a
// network's document, and 64 KiB for the other arguments.
const maxCallBytes = network.MaxXMLBytes + 64<<10

// knownFlags are those of the specification, which demands that others be
// ignored; godbus drops the message instead.
const knownFlags = byte(godbus.FlagNoReplyExpected | godbus.FlagNoAutoStart | godbus.FlagAllowInteractiveAuthorization)

// Write sends one whole message. A failure ends the connection, since half a
// message would garble all that follows.
func (s *filteredSocket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := s.conn.Write(p)
	if err != nil {
		_ = s.conn.Close()
	}
	if !s.framed && bytes.Equal(p, []byte("BEGIN\r\n")) {
		s.framed = true // nothing is read between this and the first message
	}
	return n, err
}

func (s *filteredSocket) Close() error { return s.conn.Close() }

// Read returns the bytes of messages that godbus can decode, and no others.
func (s *filteredSocket) Read(p []byte) (int, error) {
	if !s.framed {
		return s.in.Read(p)
	}
	for len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next reads one message from the socket. If godbus must not get it, its sender
// gets an error instead.
func (s *filteredSocket) next() error {
	head := s.reuse(16)
	if _, err := io.ReadFull(s.in, head); err != nil {
		return err
	}
	order, err := byteOrder(head[0])
	if err != nil {
		return err
	}
	fields := (int64(order.Uint32(head[12:])) + 7) &^ 7
	body := int64(order.Uint32(head[4:]))
	if fields+body > 1<<27 {
		return fmt.Errorf("a message of %d bytes, which D-Bus does not allow", fields+body)
	}
	if s.message, err = readMore(s.in, head, int(fields)); err != nil {
		return err
	}
	e := readEnvelope(s.message, order)
	if body > maxCallBytes && e.unsolicited() {
		_, err := io.CopyN(io.Discard, s.in, body)
		s.refuse(e, invalid(service.LimitExceeded, "the call has %d bytes and may have %d: send less", body, maxCallBytes))
		return err
	}
	if s.message, err = readMore(s.in, s.message, int(body)); err != nil {
		return err
	}
	s.message[2] &= knownFlags
	if err := tryDecode(s.message); err != nil {
		s.refuse(e, refuse(errInvalidArgs, "the call holds values that cannot be read: %v", err))
		return nil
	}
	s.rest = s.message
	return nil
}

// reuse returns the buffer of the last message, unless that was a large one.
func (s *filteredSocket) reuse(n int) []byte {
	if cap(s.message) < n || cap(s.message) > 64<<10 {
		s.message = make([]byte, n, 4<<10)
	}
	return s.message[:n]
}

func readMore(r io.Reader, b []byte, n int) ([]byte, error) {
	old := len(b)
	if cap(b) < old+n {
		b = append(make([]byte, 0, old+n), b...)
	}
	b = b[:old+n]
	_, err := io.ReadFull(r, b[old:])
	return b, err
}

func tryDecode(message []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	_, err = godbus.DecodeMessage(bytes.NewReader(message))
	return err
}

// refuse answers a call that godbus must not get.
func (s *filteredSocket) refuse(e envelope, err error) {
	if e.kind != godbus.TypeMethodCall || e.flags&godbus.FlagNoReplyExpected != 0 || e.sender == "" {
		return
	}
	w := &wire{}
	failure := toBusError(err)
	w.head(godbus.TypeError, s.serials.GetSerial(), e.serial, e.sender, "s", failure.Name)
	start := len(w.b)
	w.str(failure.Error())
	w.bodyFrom(start)
	_, _ = s.Write(w.b) // a failure ends the connection
}

// envelope is what must be known of a message to answer it without decoding it.
type envelope struct {
	kind   godbus.Type
	flags  godbus.Flags
	serial uint32
	sender string
}

// unsolicited reports whether anybody may send such a message at any time.
func (e envelope) unsolicited() bool {
	return e.kind != godbus.TypeMethodReply && e.kind != godbus.TypeError
}

// readEnvelope reads the fixed header, and the sender from the fields behind it.
// The bus itself puts the sender there, as a string.
func readEnvelope(b []byte, order binary.ByteOrder) envelope {
	e := envelope{kind: godbus.Type(b[1]), flags: godbus.Flags(b[2]), serial: order.Uint32(b[8:])}
	for at := 16; at+8 <= len(b); at = (at + 7) &^ 7 {
		code, sig := godbus.HeaderField(b[at]), string(b[at+2:at+3])
		if b[at+1] != 1 {
			return e // a field of an unknown type; the sender may be behind it
		}
		size := int(order.Uint32(b[at+4:]))
		switch sig {
		case "s", "o":
			at += 4 + 4 + size + 1
		case "u":
			at += 4 + 4
		case "g":
			at += 4 + 1 + int(b[at+4]) + 1
		default:
			return e
		}
		if code == godbus.FieldSender && sig == "s" && at <= len(b) {
			e.sender = string(b[at-1-size : at-1])
		}
	}
	return e
}

func byteOrder(mark byte) (binary.ByteOrder, error) {
	switch mark {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, fmt.Errorf("%q marks no byte order of D-Bus", mark)
}
