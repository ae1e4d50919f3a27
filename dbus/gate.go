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
	// quietTimeout is how long the authority may take for a check that asks
	// nobody. It leaves time for the work within the 25 seconds that clients
	// wait, and leaves polkit the 15 that it allows a rule. It can take those for
	// any rule: the end of one is signalled without the lock under which its
	// waiter checks (polkit 122, runaway_killer_common), and may be missed.
	quietTimeout = 18 * time.Second
	// readTTL is how long authorisation to read is cached: a client reads many
	// properties in a row, and each check takes polkit 2.6 ms.
	readTTL = time.Second
	// Limits of concurrent checks, in all and per user: quiet and interactive
	// ones together are well below the 128 calls that the bus allows.
	maxQuiet, maxQuietEach             = 32, 1
	maxInteractive, maxInteractiveEach = 64, 2
)

// Authority decides about all users but user 0.
type Authority interface {
	Check(ctx context.Context, r polkit.Request) (polkit.Answer, error)
}

// Gate is the Authorizer of a host: user 0 may do everything, also where no
// authority runs, and the authority decides about all others. Where it cannot
// decide, they may do nothing.
type Gate struct {
	conn      *godbus.Conn
	authority Authority
	users     *cache[uint32]
	readers   *cache[polkit.Answer]

	quiet, interactive *userLimiter
}

// NewGate makes a Gate. It asks the bus behind conn who callers are, and
// whether they are still connected. conn should not be the one that serves: what
// an authority that hangs leaves unanswered counts against the connection that
// called, for as long as the authority hangs.
func NewGate(conn *godbus.Conn, a Authority) *Gate {
	return &Gate{
		conn: conn, authority: a,
		users: newCache[uint32](0), readers: newCache[polkit.Answer](readTTL),
		quiet: newUserLimiter(maxQuiet, maxQuietEach), interactive: newUserLimiter(maxInteractive, maxInteractiveEach),
	}
}

// User implements Authorizer. The bus has had the answer from the kernel since
// the caller connected, so that it never changes.
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

// Check implements Authorizer. It makes all checks without interaction first, so
// that nobody has to authenticate for what will be refused, and an authority
// that hangs is noticed in seconds although a person may take minutes.
func (g *Gate) Check(ctx context.Context, sender string, interactive bool, requests []authzRequest) error {
	uid, err := g.User(ctx, sender)
	if err != nil || uid == 0 {
		return err
	}
	var challenged []polkit.Request
	for _, a := range requests {
		r := polkit.Request{Caller: sender, Action: a.action, Details: a.details}
		answer, err := g.checkQuietly(ctx, uid, r)
		if err == nil && answer == polkit.Challenge {
			challenged = append(challenged, r)
			continue
		}
		if err = verdict(r, uid, answer, err); err != nil {
			return err
		}
	}
	if len(challenged) == 0 {
		return nil
	}
	if !interactive {
		return fmt.Errorf("%w: an administrator has to authenticate for %s, and the call does not allow asking: allow interactive authorisation, or use sudo",
			ErrInteractionRequired, challenged[0].Action)
	}
	return g.checkInteractively(ctx, uid, challenged)
}

func (g *Gate) checkQuietly(ctx context.Context, uid uint32, r polkit.Request) (polkit.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	check := func() (polkit.Answer, error) { return g.checkLimited(ctx, g.quiet, uid, r) }
	if r.Action == ActionRead {
		return g.readers.get(ctx, r.Caller, check)
	}
	return check()
}

func (g *Gate) checkLimited(ctx context.Context, l *userLimiter, uid uint32, r polkit.Request) (polkit.Answer, error) {
	release, err := l.acquire(ctx, uid)
	if err != nil {
		return polkit.Denied, fmt.Errorf("waiting for the answers to earlier questions of user %d to polkit: %w; see whether polkitd hangs", uid, err)
	}
	defer release()
	return g.authority.Check(ctx, r)
}

// checkInteractively repeats the checks that need somebody's password, for as
// long as the caller is connected.
func (g *Gate) checkInteractively(ctx context.Context, uid uint32, challenged []polkit.Request) error {
	ctx, stop, err := g.whileConnected(ctx, challenged[0].Caller)
	if err != nil {
		return err
	}
	defer stop()
	for _, r := range challenged {
		r.Interactive = true
		answer, err := g.checkLimited(ctx, g.interactive, uid, r)
		if cause := context.Cause(ctx); errors.Is(cause, errCallerGone) {
			return cause
		}
		if err := verdict(r, uid, answer, err); err != nil {
			return err
		}
	}
	return nil
}

// verdict returns nil for Allowed, and an error for everything else.
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

// whileConnected returns a context that ends when the caller leaves the bus, and
// the function that stops watching for that, which must be called.
func (g *Gate) whileConnected(ctx context.Context, caller string) (context.Context, func(), error) {
	match := []godbus.MatchOption{
		godbus.WithMatchSender(busDriver), godbus.WithMatchInterface(busDriver),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, caller),
	}
	if err := g.onBus(ctx, func(ctx context.Context) error { return g.conn.AddMatchSignalContext(ctx, match...) }); err != nil {
		return nil, nil, fmt.Errorf("%w: watching the caller: %w", ErrAccessDenied, err)
	}
	connected, cancel := context.WithCancelCause(ctx)
	signals := make(chan *godbus.Signal, 16)
	g.conn.Signal(signals)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitDisconnect(connected, signals, caller, cancel)
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
	return connected, stop, nil
}

func (g *Gate) onBus(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return do(ctx)
}

func awaitDisconnect(ctx context.Context, signals <-chan *godbus.Signal, caller string, cancel context.CancelCauseFunc) {
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				cancel(errCallerGone) // the bus is gone, and the caller with it
				return
			}
			// Only the bus itself can have this name as sender.
			if s.Sender == busDriver && s.Name == busDriver+".NameOwnerChanged" && len(s.Body) == 3 && s.Body[0] == caller && s.Body[2] == "" {
				cancel(errCallerGone)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
