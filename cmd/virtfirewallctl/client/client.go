// Package client calls the service over the system bus. It holds no state other
// than the connection, prints nothing, and returns plain values that do not
// depend on a command line.
package client

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"
)

// Names of the service on the bus.
const (
	BusName          = "org.virtfirewall.NetworkFirewall1"
	ManagerPath      = dbus.ObjectPath("/org/virtfirewall/NetworkFirewall1")
	ManagerInterface = "org.virtfirewall.NetworkFirewall1"
	NetworkInterface = "org.virtfirewall.NetworkFirewall1.Network"
	errorPrefix      = "org.virtfirewall.NetworkFirewall1.Error."
	propertiesIface  = "org.freedesktop.DBus.Properties"
)

// How long calls may last. A change may wait for a person to authenticate, so
// its limit is far longer than the usual 25 seconds on D-Bus.
const (
	ReadTimeout   = 25 * time.Second
	ChangeTimeout = 3 * time.Minute
)

// MaxXMLBytes is the size of the longest document that the service accepts.
const MaxXMLBytes = 1 << 20

// Options configure how a Client connects and calls.
type Options struct {
	// Timeout replaces ReadTimeout and ChangeTimeout where it is not zero.
	Timeout time.Duration
	// NoAutoStart keeps calls from starting the service.
	NoAutoStart bool
	// Prompt prepares to ask the user to authenticate, until stop is called. nil
	// means that there is no user to ask.
	Prompt func(ctx context.Context) (stop func())
	// Slow is told what a call waits for that lasts longer than two seconds. nil
	// means that nobody wants to know.
	Slow func(why string)
}

// Client is a connection to the bus on which the service lives.
type Client struct {
	conn    *dbus.Conn
	options Options
}

// Dial connects to $DBUS_SYSTEM_BUS_ADDRESS, or to the system bus where that is
// not set. The connection lasts until Close or until ctx ends.
func Dial(ctx context.Context, o Options) (*Client, error) {
	type dialled struct {
		conn *dbus.Conn
		err  error
	}
	// A bus that hangs can block connect(2) for ever, which no context ends. The
	// goroutine is then left behind; its context closes the connection that it
	// may still make.
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan dialled, 1)
	go func() {
		conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
		done <- dialled{conn, err}
	}()
	timer := time.NewTimer(o.limit(ReadTimeout))
	defer timer.Stop()
	select {
	case d := <-done:
		if d.err != nil {
			cancel()
			return nil, unreachable("connecting to the system bus: %v", d.err)
		}
		context.AfterFunc(d.conn.Context(), cancel)
		return &Client{conn: d.conn, options: o}, nil
	case <-timer.C:
		cancel()
		return nil, unreachable("connecting to the system bus: it did not answer in time")
	case <-ctx.Done():
		cancel()
		return nil, unreachable("connecting to the system bus: %v", context.Cause(ctx))
	}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (o Options) limit(usual time.Duration) time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return usual
}

// read calls a method that changes nothing and stores what it returns.
func (c *Client) read(ctx context.Context, path dbus.ObjectPath, method string, args []any, out ...any) error {
	defer c.watchSlow(ctx, method, false)()
	return c.call(ctx, path, method, 0, c.options.limit(ReadTimeout), args, out)
}

// change calls a method that changes something. The service may ask a user to
// authenticate if Prompt is set; otherwise it must refuse at once rather than
// wait.
func (c *Client) change(ctx context.Context, path dbus.ObjectPath, method string, args []any, out ...any) error {
	var flags dbus.Flags
	if c.options.Prompt != nil {
		flags = dbus.FlagAllowInteractiveAuthorization
		defer c.options.Prompt(ctx)()
	}
	defer c.watchSlow(ctx, method, true)()
	return c.call(ctx, path, method, flags, c.options.limit(ChangeTimeout), args, out)
}

// call builds the message itself because godbus's own Object.Call drops the
// flag that allows interactive authorisation.
func (c *Client) call(ctx context.Context, path dbus.ObjectPath, method string, flags dbus.Flags,
	limit time.Duration, args, out []any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.options.NoAutoStart {
		flags |= dbus.FlagNoAutoStart
	}
	dot := strings.LastIndex(method, ".")
	msg := &dbus.Message{
		Type:  dbus.TypeMethodCall,
		Flags: flags,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:        dbus.MakeVariant(path),
			dbus.FieldDestination: dbus.MakeVariant(BusName),
			dbus.FieldInterface:   dbus.MakeVariant(method[:dot]),
			dbus.FieldMember:      dbus.MakeVariant(method[dot+1:]),
		},
		Body: args,
	}
	if len(args) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(args...))
	}
	call := <-c.conn.SendWithContext(ctx, msg, make(chan *dbus.Call, 1)).Done
	if call.Err != nil {
		return c.withReason(ctx, explain(method[dot+1:], call.Err))
	}
	if err := call.Store(out...); err != nil {
		return fmt.Errorf("%s: reading the answer: %w", describe(method[dot+1:]), err)
	}
	return nil
}

// text returns an error for what cannot be a D-Bus string: the bus would close
// the connection on such a message.
func text(what, s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8 text", what)
	}
	if strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s contains a NUL byte", what)
	}
	return nil
}
