package dbus

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// handler is where godbus looks objects up. It returns the same target for all
// of them, so that all calls pass the same checks.
type handler struct{ server atomic.Pointer[Server] }

// LookupObject implements godbus.Handler.
func (h *handler) LookupObject(godbus.ObjectPath) (godbus.ServerObject, bool) { return target{h}, true }

// target is object, interface and method for godbus, all at once.
type target struct{ h *handler }

func (t target) LookupInterface(string) (godbus.Interface, bool) { return t, true }
func (t target) LookupMethod(string) (godbus.Method, bool)       { return t, true }
func (t target) NumArguments() int                               { return 0 }
func (t target) NumReturns() int                                 { return 0 }
func (t target) ArgumentValue(int) any                           { return nil }
func (t target) ReturnValue(int) any                             { return nil }

// DecodeArguments returns the whole message as the only argument.
func (t target) DecodeArguments(conn *godbus.Conn, sender string, msg *godbus.Message, _ []any) ([]any, error) {
	c := newCall(conn, sender, msg)
	// The server itself sends the reply, in order with the signals and with the
	// contract's error names. This keeps godbus from sending one as well.
	msg.Flags |= godbus.FlagNoReplyExpected
	return []any{c}, nil
}

// Call serves the call. The reply has been sent when it returns.
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
	// action is what the caller needs authorisation for; "" for none. A call may
	// need more, see work.requests.
	action string
	// exclusive has room for one call, where only one may run at a time; else nil.
	exclusive chan struct{}
	// state means that the reply shows what signals announce: see Server.order.
	state bool
	// prepare checks the arguments only. Its errors reveal nothing about the
	// host, so that they may come before the authorisation.
	prepare func(*call) (work, error)

	in  string // the arguments' signature, from the introspection data
	out godbus.Signature
}

// work is a call whose arguments are checked.
type work struct {
	requests []authzRequest // for the Authorizer; nil for the method's action alone
	do       func(context.Context) ([]any, error)
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
	p, caller, err := s.admit(c, m)
	if err != nil {
		c.fail(err)
		return
	}
	defer p.leave(caller)
	w, err := s.prepare(c, m, p)
	if err == nil {
		err = s.authorise(c, m, w)
	}
	if err != nil {
		c.fail(err)
		return
	}
	s.run(c, m, w, p)
}

// admit enters the call into the pool that it waits and runs in, counted for
// caller. Root's calls have pools of their own, which nobody else can fill; the
// limit for another user holds for all connections of that user together.
func (s *Server) admit(c *call, m method) (p *pool, caller string, err error) {
	ctx, cancel := context.WithTimeout(s.base, busTimeout)
	defer cancel()
	if c.user, err = s.auth.User(ctx, c.sender); err != nil {
		return nil, "", refuse(errAccessDenied, "%s", err)
	}
	own, caller := s.root, c.sender
	if c.user != 0 {
		own, caller = s.others, fmt.Sprint("user ", c.user)
	}
	p = own.reads
	if m.changes() {
		p = own.changes
	}
	return p, caller, p.enter(caller)
}

// prepare takes a slot among the running calls, since a document can be large,
// but releases it again: no call may hold one while a person types a password.
func (s *Server) prepare(c *call, m method, p *pool) (work, error) {
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
	requests := w.requests
	if requests == nil {
		requests = []authzRequest{{action: m.action, details: map[string]string{}}}
	}
	ctx, cancel := context.WithTimeout(s.base, authTimeout)
	defer cancel()
	err := s.auth.Check(ctx, c.sender, c.interactive, requests)
	if err != nil && errorName(err) != errInteractive {
		// A check that fails for any reason is a denial.
		err = refuse(errAccessDenied, "%s", err)
	}
	if err != nil {
		s.denials.write(c, requests[0].details, err)
	}
	return err
}

// run does the work and replies.
func (s *Server) run(c *call, m method, w work, p *pool) {
	ctx, cancel := context.WithTimeout(s.base, callTimeout)
	defer cancel()
	if err := p.start(ctx); err != nil {
		c.fail(err)
		return
	}
	defer p.stop()
	if m.exclusive != nil {
		select {
		case m.exclusive <- struct{}{}:
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
	if m.exclusive != nil {
		<-m.exclusive // before the reply: a caller that has that may call again
	}
	if m.changes() {
		// The signals of a change come before the reply to it.
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

// encoded is a whole message instead of a body, already encoded.
type encoded []byte

func (s *Server) reply(c *call, out godbus.Signature, body []any) {
	if !c.wantsReply {
		return
	}
	if len(body) == 1 {
		if raw, ok := body[0].(encoded); ok {
			_, _ = s.bus.socket.Write(raw) // a failure ends the connection
			return
		}
	}
	msg := &godbus.Message{Type: godbus.TypeMethodReply, Headers: c.replyHeaders(), Body: body}
	if !out.Empty() {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(out)
	}
	c.conn.Send(msg, nil)
}

// fail replies with an error.
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

// argument returns the i-th argument. The signature was checked before, so that
// a wrong type is a bug.
func argument[T any](c *call, i int) T {
	v, ok := c.args[i].(T)
	if !ok {
		panic(fmt.Sprintf("argument %d of %s is a %T", i, c.member, c.args[i]))
	}
	return v
}
