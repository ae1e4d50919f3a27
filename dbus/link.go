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

// link is the socket, with a guard before godbus for what any local user can
// send us:
//   - godbus ends the connection at a message that it cannot decode, and there
//     are valid ones (a dictionary of arrays of structs is enough);
//   - some of these make it panic in a goroutine of its own;
//   - variants take a hundred times their size once they are decoded;
//   - its own unix transport takes file descriptors and never closes them. Over
//     this link the bus passes none.
type link struct {
	sock    net.Conn
	in      *bufio.Reader
	serials serials

	// framed says that messages come now, no longer lines of the handshake. It
	// is set before godbus starts to read messages.
	framed bool

	// These belong to the one goroutine that reads.
	message []byte // the last message that was let through
	rest    []byte // what of it is still to be read

	mu sync.Mutex // one message is written at a time
}

// maxCallBytes is the largest body of a call or signal that is decoded: a
// network's document, and something for the other arguments.
const maxCallBytes = network.MaxXMLBytes + 64<<10

// knownFlags are those of the specification; others are to be ignored, where
// godbus would drop the message.
const knownFlags = byte(godbus.FlagNoReplyExpected | godbus.FlagNoAutoStart | godbus.FlagAllowInteractiveAuthorization)

// Write sends one whole message. A failure ends the connection, since half a
// message would garble all that follows.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.sock.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := l.sock.Write(p)
	if err != nil {
		_ = l.sock.Close()
	}
	if !l.framed && bytes.Equal(p, []byte("BEGIN\r\n")) {
		l.framed = true // nothing is read between this and the first message
	}
	return n, err
}

func (l *link) Close() error { return l.sock.Close() }

// Read gives the bytes of messages that godbus can decode, and no others.
func (l *link) Read(p []byte) (int, error) {
	if !l.framed {
		return l.in.Read(p)
	}
	for len(l.rest) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// next takes one message from the socket. If it is to be kept from godbus, its
// sender gets an error instead.
func (l *link) next() error {
	head := l.reuse(16)
	if _, err := io.ReadFull(l.in, head); err != nil {
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
	if l.message, err = readMore(l.in, head, int(fields)); err != nil {
		return err
	}
	e := readEnvelope(l.message, order)
	if body > maxCallBytes && e.unasked() {
		_, err := io.CopyN(io.Discard, l.in, body)
		l.refuse(e, invalid(service.LimitExceeded, "the call has %d bytes and may have %d: send less", body, maxCallBytes))
		return err
	}
	if l.message, err = readMore(l.in, l.message, int(body)); err != nil {
		return err
	}
	l.message[2] &= knownFlags
	if err := decodes(l.message); err != nil {
		l.refuse(e, refuse(errInvalidArgs, "the call holds values that cannot be read: %v", err))
		return nil
	}
	l.rest = l.message
	return nil
}

// reuse gives the buffer of the last message, unless that was a large one.
func (l *link) reuse(n int) []byte {
	if cap(l.message) < n || cap(l.message) > 64<<10 {
		l.message = make([]byte, n, 4<<10)
	}
	return l.message[:n]
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

func decodes(message []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	_, err = godbus.DecodeMessage(bytes.NewReader(message))
	return err
}

// refuse answers a call that is kept from godbus.
func (l *link) refuse(e envelope, err error) {
	if e.kind != godbus.TypeMethodCall || e.flags&godbus.FlagNoReplyExpected != 0 || e.sender == "" {
		return
	}
	w := &wire{}
	failure := toBusError(err)
	w.head(godbus.TypeError, l.serials.GetSerial(), e.serial, e.sender, "s", failure.Name)
	start := len(w.b)
	w.str(failure.Error())
	w.bodyFrom(start)
	_, _ = l.Write(w.b) // a failure ends the connection
}

// envelope is what must be known of a message to answer it unread.
type envelope struct {
	kind   godbus.Type
	flags  godbus.Flags
	serial uint32
	sender string
}

// unasked says that anybody may send such a message at any time.
func (e envelope) unasked() bool {
	return e.kind != godbus.TypeMethodReply && e.kind != godbus.TypeError
}

// readEnvelope looks at the fixed header and for the sender in the fields
// behind it. The bus puts the sender there itself, as a string.
func readEnvelope(b []byte, order binary.ByteOrder) envelope {
	e := envelope{kind: godbus.Type(b[1]), flags: godbus.Flags(b[2]), serial: order.Uint32(b[8:])}
	for at := 16; at+8 <= len(b); at = (at + 7) &^ 7 {
		code, sig := godbus.HeaderField(b[at]), string(b[at+2:at+3])
		if b[at+1] != 1 {
			return e // a field of the future; the sender may hide behind it
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
