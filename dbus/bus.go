package dbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// Bus is a private connection to a message bus that can serve objects. Other
// packages may call other services over the same connection.
type Bus struct {
	conn    *godbus.Conn
	socket  *filteredSocket
	handler *handler
	serials *serials
}

// Connect opens a connection to the bus at address, which is a D-Bus address
// of the unix transport; "" means the system bus. ctx limits connecting only.
// Nothing is served before a Server is started on it.
func Connect(ctx context.Context, address string) (*Bus, error) {
	if address == "" {
		address = systemAddress()
	}
	s, err := dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the bus at %s: %w; check that dbus-daemon or dbus-broker runs", address, err)
	}
	b := &Bus{socket: s, handler: &handler{}, serials: &s.serials}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := b.greet(); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("greeting the bus at %s: %w", address, errors.Join(err, ctx.Err()))
	}
	return b, nil
}

func (b *Bus) greet() (err error) {
	b.conn, err = godbus.NewConn(b.socket,
		godbus.WithHandler(b.handler),
		godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()),
		godbus.WithIncomingInterceptor(interceptPeerCalls),
		godbus.WithSerialGenerator(b.serials))
	if err != nil {
		return err
	}
	if err := b.conn.Auth(nil); err != nil {
		return err
	}
	return b.conn.Hello()
}

// Conn returns the connection, for calls to other services. It must not be
// closed; its context ends when the connection does.
func (b *Bus) Conn() *godbus.Conn { return b.conn }

// Close ends the connection, also while the bus does not read.
func (b *Bus) Close() error {
	// Close the socket first: godbus waits for a write in progress, which never
	// ends if the bus hangs.
	err := b.socket.Close()
	if b.conn != nil {
		_ = b.conn.Close()
	}
	return err
}

// interceptPeerCalls keeps godbus from answering org.freedesktop.DBus.Peer
// itself: it would return the bus's identifier for the machine's. A name without
// a dot cannot come over the wire, so no caller can send peerMark.
func interceptPeerCalls(msg *godbus.Message) {
	if msg.Type != godbus.TypeMethodCall {
		return
	}
	if v, ok := msg.Headers[godbus.FieldInterface]; ok && v.Value() == peerInterface {
		msg.Headers[godbus.FieldInterface] = godbus.MakeVariant(peerMark)
	}
}

const peerMark = "peer"

// serials numbers outgoing messages, godbus's and our own alike.
type serials struct{ last atomic.Uint32 }

func (s *serials) GetSerial() uint32 {
	for {
		if n := s.last.Add(1); n != 0 {
			return n
		}
	}
}

func (s *serials) RetireSerial(uint32) {}

func systemAddress() string {
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		return a
	}
	return "unix:path=/run/dbus/system_bus_socket"
}

// dial tries the addresses of a list in order, as the D-Bus specification demands.
func dial(ctx context.Context, list string) (*filteredSocket, error) {
	var errs []error
	for address := range strings.SplitSeq(list, ";") {
		name, err := socketName(address)
		if err == nil {
			var d net.Dialer
			var c net.Conn
			if c, err = d.DialContext(ctx, "unix", name); err == nil {
				return &filteredSocket{conn: c, in: bufio.NewReaderSize(c, 16<<10)}, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// socketName returns the name that net.Dial wants for a D-Bus address.
func socketName(address string) (string, error) {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("bus address %q is not of the unix transport", address)
	}
	for pair := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(pair, "=")
		if key != "path" && key != "abstract" {
			continue
		}
		value, err := godbus.UnescapeBusAddressValue(value)
		if err != nil {
			return "", fmt.Errorf("bus address %q: %w", address, err)
		}
		if key == "abstract" {
			value = "@" + value
		}
		return value, nil
	}
	return "", fmt.Errorf("bus address %q names neither path nor abstract", address)
}
