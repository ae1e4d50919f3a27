package dbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/polkit"
)

const (
	// quietTimeout is how long an authority may think that asks nobody. It
	// leaves time for the work within the 25 seconds that clients wait, and
	// polkit the 15 that it gives a rule. Those it may take for any rule: the
	// end of one is signalled without the lock that its waiter looks under
	// (polkit 122, runaway_killer_common), and may be missed.
	quietTimeout = 18 * time.Second
	// readingLasts is how long the right to read is taken for granted: a client
	// reads many properties in a row, and each question takes polkit 2.6 ms.
	readingLasts = time.Second
	// How many questions are with the authority at once, in all and of each
	// user: with those to people, well below the 128 that the bus allows.
	maxQuiet, maxQuietEach   = 32, 1
	maxPeople, maxPeopleEach = 64, 2
)

// Authority is asked about everybody but user 0.
type Authority interface {
	Check(ctx context.Context, r polkit.Request) (polkit.Answer, error)
}

// Gate is the Authorizer of a host: user 0 may do everything, also where no
// authority runs, and the authority decides about all others. Where it cannot,
// they may do nothing.
type Gate struct {
	conn      *godbus.Conn
	authority Authority
	users     *memory[uint32]
	readers   *memory[polkit.Answer]

	quiet, people *turns
}

// NewGate makes a Gate. It asks the bus behind conn who callers are, and
// whether they are still there. conn is better not the one that serves: what an
// authority that hangs leaves unanswered counts against the connection that
// asked, for as long as the authority hangs.
func NewGate(conn *godbus.Conn, a Authority) *Gate {
	return &Gate{
		conn: conn, authority: a,
		users: newMemory[uint32](0), readers: newMemory[polkit.Answer](readingLasts),
		quiet: newTurns(maxQuiet, maxQuietEach), people: newTurns(maxPeople, maxPeopleEach),
	}
}

// User is part of Authorizer. The bus has the answer from the kernel, since the
// caller connected, so that it stays true.
func (g *Gate) User(ctx context.Context, sender string) (uint32, error) {
	return g.users.get(ctx, sender, func() (uid uint32, err error) {
		ctx, cancel := context.WithTimeout(ctx, busTimeout)
		defer cancel()
		err = g.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid)
		if err != nil {
			return 0, fmt.Errorf("%w: finding out who %s is: %w", ErrAccessDenied, sender, err)
		}
		return uid, nil
	})
}

// Check is part of Authorizer. All is asked quietly first, so that nobody is
// bothered for what will be refused, and an authority that hangs is noticed in
// seconds although a person may take minutes.
func (g *Gate) Check(ctx context.Context, sender string, interactive bool, asks []ask) error {
	uid, err := g.User(ctx, sender)
	if err != nil || uid == 0 {
		return err
	}
	var open []polkit.Request
	for _, a := range asks {
		r := polkit.Request{Caller: sender, Action: a.action, Details: a.details}
		answer, err := g.quietly(ctx, uid, r)
		if err == nil && answer == polkit.Challenge {
			open = append(open, r)
			continue
		}
		if err = verdict(r, uid, answer, err); err != nil {
			return err
		}
	}
	if len(open) == 0 {
		return nil
	}
	if !interactive {
		return fmt.Errorf("%w: an administrator has to authenticate for %s, and the call does not allow asking: allow interactive authorisation, or use sudo",
			ErrInteractionRequired, open[0].Action)
	}
	return g.withPeople(ctx, uid, open)
}

func (g *Gate) quietly(ctx context.Context, uid uint32, r polkit.Request) (polkit.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	ask := func() (polkit.Answer, error) { return g.inTurn(ctx, g.quiet, uid, r) }
	if r.Action == ActionRead {
		return g.readers.get(ctx, r.Caller, ask)
	}
	return ask()
}

func (g *Gate) inTurn(ctx context.Context, t *turns, uid uint32, r polkit.Request) (polkit.Answer, error) {
	done, err := t.take(ctx, uid)
	if err != nil {
		return polkit.Denied, fmt.Errorf("waiting for the answers to earlier questions of user %d to polkit: %w; see whether polkitd hangs", uid, err)
	}
	defer done()
	return g.authority.Check(ctx, r)
}

// withPeople asks again what needs somebody's password, for as long as the
// caller is there.
func (g *Gate) withPeople(ctx context.Context, uid uint32, open []polkit.Request) error {
	ctx, stop, err := g.whileThere(ctx, open[0].Caller)
	if err != nil {
		return err
	}
	defer stop()
	for _, r := range open {
		r.Interactive = true
		answer, err := g.inTurn(ctx, g.people, uid, r)
		if cause := context.Cause(ctx); errors.Is(cause, errCallerGone) {
			return cause
		}
		if err := verdict(r, uid, answer, err); err != nil {
			return err
		}
	}
	return nil
}

// verdict makes an error of everything but a yes.
func verdict(r polkit.Request, uid uint32, answer polkit.Answer, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w; until then only root may: use sudo", ErrAccessDenied, err)
	case answer == polkit.Allowed:
		return nil
	case answer == polkit.Dismissed:
		return fmt.Errorf("%w: the authentication for %s was dismissed", ErrAccessDenied, r.Action)
	case answer == polkit.Challenge:
		return fmt.Errorf("%w: an administrator has to authenticate for %s, and there is no agent to ask one: run pkttyagent beside the client, or use sudo",
			ErrAccessDenied, r.Action)
	}
	return fmt.Errorf("%w: polkit does not let user %d do %s: use sudo, or have a rule made", ErrAccessDenied, uid, r.Action)
}

var errCallerGone = fmt.Errorf("%w: the caller has left the bus", ErrAccessDenied)

// whileThere gives a context that ends when the caller leaves the bus. stop
// must be called, and leaves nothing running.
func (g *Gate) whileThere(ctx context.Context, caller string) (context.Context, func(), error) {
	match := []godbus.MatchOption{
		godbus.WithMatchSender(busDriver), godbus.WithMatchInterface(busDriver),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, caller),
	}
	if err := g.onBus(ctx, func(ctx context.Context) error { return g.conn.AddMatchSignalContext(ctx, match...) }); err != nil {
		return nil, nil, fmt.Errorf("%w: watching the caller: %w", ErrAccessDenied, err)
	}
	there, cancel := context.WithCancelCause(ctx)
	signals := make(chan *godbus.Signal, 16)
	g.conn.Signal(signals)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitGone(there, signals, caller, cancel)
	}()
	stop := func() {
		cancel(nil)
		<-ended
		g.conn.RemoveSignal(signals)
		_ = g.onBus(context.WithoutCancel(ctx), func(ctx context.Context) error { return g.conn.RemoveMatchSignalContext(ctx, match...) })
	}
	var is bool
	err := g.onBus(ctx, func(ctx context.Context) error {
		return g.conn.BusObject().CallWithContext(ctx, busDriver+".NameHasOwner", 0, caller).Store(&is)
	})
	if err != nil || !is {
		stop()
		return nil, nil, errors.Join(errCallerGone, err)
	}
	return there, stop, nil
}

func (g *Gate) onBus(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return do(ctx)
}

func awaitGone(ctx context.Context, signals <-chan *godbus.Signal, caller string, gone context.CancelCauseFunc) {
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				gone(errCallerGone) // the bus is gone, and the caller with it
				return
			}
			// The bus alone may call itself by this name.
			if s.Sender == busDriver && s.Name == busDriver+".NameOwnerChanged" && len(s.Body) == 3 && s.Body[0] == caller && s.Body[2] == "" {
				gone(errCallerGone)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
