package dbus

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// handler is what godbus asks for objects. It gives one target for all of
// them, so that every call passes the same gate whatever it is for.
type handler struct{ server atomic.Pointer[Server] }

// LookupObject is part of godbus.Handler.
func (h *handler) LookupObject(godbus.ObjectPath) (godbus.ServerObject, bool) { return target{h}, true }

// target plays object, interface and method for godbus, all at once.
type target struct{ h *handler }

func (t target) LookupInterface(string) (godbus.Interface, bool) { return t, true }
func (t target) LookupMethod(string) (godbus.Method, bool)       { return t, true }
func (t target) NumArguments() int                               { return 0 }
func (t target) NumReturns() int                                 { return 0 }
func (t target) ArgumentValue(int) any                           { return nil }
func (t target) ReturnValue(int) any                             { return nil }

// DecodeArguments takes the whole message for the argument.
func (t target) DecodeArguments(conn *godbus.Conn, sender string, msg *godbus.Message, _ []any) ([]any, error) {
	c := newCall(conn, sender, msg)
	// The answer is ours to send, in order with the signals and with error
	// names as they should be. This keeps godbus from sending one as well.
	msg.Flags |= godbus.FlagNoReplyExpected
	return []any{c}, nil
}

// Call serves the call; it has sent the answer when it returns.
func (t target) Call(args ...any) ([]any, error) {
	c := args[0].(*call)
	s := t.h.server.Load()
	if s == nil || !s.begin() {
		c.fail(refuse(errFailed, "the service is starting or stopping: try again in a moment"))
		return nil, nil
	}
	defer s.calls.Done()
	s.serve(c)
	return nil, nil
}

// call is one method call.
type call struct {
	conn        *godbus.Conn
	serial      uint32
	sender      string
	path        godbus.ObjectPath
	iface       string // "" where the caller named none
	member      string
	signature   string
	args        []any
	interactive bool
	wantsReply  bool

	object object // once it is routed
	user   uint32 // once it is admitted
}

func newCall(conn *godbus.Conn, sender string, msg *godbus.Message) *call {
	c := &call{conn: conn, sender: sender, serial: msg.Serial(), args: msg.Body}
	c.path, _ = msg.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	c.iface, _ = msg.Headers[godbus.FieldInterface].Value().(string)
	c.member, _ = msg.Headers[godbus.FieldMember].Value().(string)
	if c.iface == peerMark {
		c.iface = peerInterface
	}
	if sig, ok := msg.Headers[godbus.FieldSignature].Value().(godbus.Signature); ok {
		c.signature = sig.String()
	}
	c.interactive = msg.Flags&godbus.FlagAllowInteractiveAuthorization != 0
	c.wantsReply = msg.Flags&godbus.FlagNoReplyExpected == 0
	return c
}

// method is how one method of the contract is served.
type method struct {
	// action is what the caller needs the right to; "" for none. A call may
	// need more, which its work says then.
	action string
	// alone has one place, where only one such call may run at a time.
	alone chan struct{}
	// state says that the answer shows what signals announce: see Server.order.
	state bool
	// prepare looks at the arguments only. What it finds wrong reveals nothing
	// about the host, so that it may come before the authorisation.
	prepare func(*call) (work, error)

	in  string // the arguments' signature, from the introspection data
	out godbus.Signature
}

// work is a call that is understood.
type work struct {
	asks []ask // for the Authorizer; nil for the method's action alone
	do   func(context.Context) ([]any, error)
}

// changes reports whether the method does more than read.
func (m method) changes() bool { return m.action != "" && m.action != ActionRead }

// serve answers one call.
func (s *Server) serve(c *call) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while serving a call", "member", c.member, "path", c.path, "panic", p, "stack", string(debug.Stack()))
			c.fail(refuse(errFailed, "the call failed by a fault in the service: journalctl -u virtfirewalld has the details, please report them"))
		}
	}()
	m, err := s.route(c)
	if err != nil {
		c.fail(err)
		return
	}
	p, who, err := s.admit(c, m)
	if err != nil {
		c.fail(err)
		return
	}
	defer p.leave(who)
	w, err := s.understand(c, m, p)
	if err == nil {
		err = s.authorise(c, m, w)
	}
	if err != nil {
		c.fail(err)
		return
	}
	s.run(c, m, w, p)
}

// admit finds the pool that a call waits and runs in, and gives it a place there
// under the name who. Root's calls have pools of their own, which nobody else
// can fill; and the bound on other users holds for all connections of one.
func (s *Server) admit(c *call, m method) (p *pool, who string, err error) {
	ctx, cancel := context.WithTimeout(s.base, busTimeout)
	defer cancel()
	if c.user, err = s.auth.User(ctx, c.sender); err != nil {
		return nil, "", refuse(errAccessDenied, "%s", err)
	}
	side, who := s.root, c.sender
	if c.user != 0 {
		side, who = s.others, fmt.Sprint("user ", c.user)
	}
	p = side.reads
	if m.changes() {
		p = side.changes
	}
	return p, who, p.enter(who)
}

// understand takes a place among the running calls as well, since a document
// can be large; but nobody keeps one while a person types a password.
func (s *Server) understand(c *call, m method, p *pool) (work, error) {
	ctx, cancel := context.WithTimeout(s.base, callTimeout)
	defer cancel()
	if err := p.start(ctx); err != nil {
		return work{}, err
	}
	defer p.stop()
	return m.prepare(c)
}

func (s *Server) authorise(c *call, m method, w work) error {
	if m.action == "" {
		return nil
	}
	asks := w.asks
	if asks == nil {
		asks = []ask{{action: m.action, details: map[string]string{}}}
	}
	ctx, cancel := context.WithTimeout(s.base, authTimeout)
	defer cancel()
	err := s.auth.Check(ctx, c.sender, c.interactive, asks)
	if err != nil && errorName(err) != errInteractive {
		// Whatever went wrong in the asking, the answer is no.
		err = refuse(errAccessDenied, "%s", err)
	}
	if err != nil {
		s.denials.note(c, asks[0].details, err)
	}
	return err
}

// run does the work and answers.
func (s *Server) run(c *call, m method, w work, p *pool) {
	ctx, cancel := context.WithTimeout(s.base, callTimeout)
	defer cancel()
	if err := p.start(ctx); err != nil {
		c.fail(err)
		return
	}
	defer p.stop()
	if m.alone != nil {
		select {
		case m.alone <- struct{}{}:
		default:
			c.fail(refuse(errLimitsExceeded, "another call of this kind is under way, and there is one at a time: try again when it has ended"))
			return
		}
	}
	if m.state {
		s.order.Lock()
		defer s.order.Unlock()
	}
	body, err := w.do(ctx)
	if m.alone != nil {
		<-m.alone // before the answer: who has that may call again
	}
	if m.changes() {
		// Who gets the answer has got the signals of the change before it.
		s.events.flush(ctx)
	}
	if err != nil {
		c.fail(err)
		return
	}
	s.reply(c, m.out, body)
}

// route finds the method that a call is for.
func (s *Server) route(c *call) (method, error) {
	var ok bool
	if c.object, ok = parsePath(c.path); ok && c.object.kind == networkObject {
		_, ok = s.api.NetworkStatus(c.object.name)
	}
	// Peer is about the process, whatever the path.
	if !ok && c.iface != peerInterface {
		return method{}, refuse(errUnknownObject, "there is no object %s", c.path)
	}
	known := false
	for _, iface := range c.object.kind.interfaces() {
		if c.iface != "" && c.iface != iface {
			continue
		}
		known = true
		if m, ok := s.methods[iface][c.member]; ok {
			return m, m.check(c)
		}
	}
	if !known {
		return method{}, refuse(errUnknownInterface, "%s has no interface %s", c.path, c.iface)
	}
	return method{}, refuse(errUnknownMethod, "%s has no method %s", c.path, c.member)
}

func (m method) check(c *call) error {
	if c.signature != m.in {
		return refuse(errInvalidArgs, "%s takes arguments of signature %q, not %q", c.member, m.in, c.signature)
	}
	return nil
}

// encoded is a body that has the whole message written already.
type encoded []byte

func (s *Server) reply(c *call, out godbus.Signature, body []any) {
	if !c.wantsReply {
		return
	}
	if len(body) == 1 {
		if raw, ok := body[0].(encoded); ok {
			_, _ = s.bus.link.Write(raw) // a failure ends the connection
			return
		}
	}
	msg := &godbus.Message{Type: godbus.TypeMethodReply, Headers: c.replyHeaders(), Body: body}
	if !out.Empty() {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(out)
	}
	c.conn.Send(msg, nil)
}

// fail answers with an error.
func (c *call) fail(err error) {
	if !c.wantsReply {
		return
	}
	e := toBusError(err)
	msg := &godbus.Message{Type: godbus.TypeError, Headers: c.replyHeaders(), Body: e.Body}
	msg.Headers[godbus.FieldErrorName] = godbus.MakeVariant(e.Name)
	msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(e.Body...))
	c.conn.Send(msg, nil)
}

func (c *call) replyHeaders() map[godbus.HeaderField]godbus.Variant {
	return map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(c.sender),
		godbus.FieldReplySerial: godbus.MakeVariant(c.serial),
	}
}

// argument gives the i-th argument. The signature is checked before, so that
// a wrong type is a fault of ours.
func argument[T any](c *call, i int) T {
	v, ok := c.args[i].(T)
	if !ok {
		panic(fmt.Sprintf("argument %d of %s is a %T", i, c.member, c.args[i]))
	}
	return v
}
