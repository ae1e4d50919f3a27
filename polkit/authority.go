// Package polkit asks the host's authority whether somebody may do something.
// It has no actions of its own, and does not know what they do.
package polkit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

const (
	busName       = "org.freedesktop.PolicyKit1"
	authorityPath = "/org/freedesktop/PolicyKit1/Authority"
	authority     = busName + ".Authority"

	allowInteraction = uint32(1)
)

// Answer is the authority's decision. The zero value is a denial.
type Answer int

// The answers.
const (
	Denied Answer = iota
	Allowed
	Challenge // the caller may once somebody has authenticated, and nobody was asked
	Dismissed // somebody was asked and dismissed the dialogue
)

// Why there is no valid answer; test for them with errors.Is. All mean a denial.
var (
	ErrAbsent        = errors.New("polkit is not on the bus")
	ErrSilent        = errors.New("polkit did not answer in time")
	ErrGone          = errors.New("polkit stopped before it answered")
	ErrUnknownAction = errors.New("polkit does not know the action")
	ErrNonsense      = errors.New("polkit's answer is not one")
)

// Request is one authorisation request.
type Request struct {
	// Caller is the unique bus name of the process that wants to do it. The bus
	// never assigns one twice, and polkit asks the bus for its user, so that no
	// process can pass for another as it could with a process's number.
	Caller string
	Action string
	// Details are shown to the person caller is asked, and rules can use them. Only
	// user 0 and the owner of the action may pass any.
	Details map[string]string
	// Interactive allows the authority to ask a person, and to wait for the answer.
	Interactive bool
}

// Authority is a client of polkit over a connection that others may use as well.
type Authority struct {
	conn   *dbus.Conn
	object dbus.BusObject
	asked  atomic.Uint64
}

// New returns an Authority. It need not be closed.
func New(conn *dbus.Conn) *Authority {
	return &Authority{conn: conn, object: conn.Object(busName, authorityPath)}
}

// subject is polkit's description of the caller.
type subject struct {
	Kind    string
	Details map[string]dbus.Variant
}

// Check asks polkit, and waits for the answer for as long as ctx lasts. When that
// ends first, it cancels the request, so that polkit closes its dialogue.
func (a *Authority) Check(ctx context.Context, r Request) (Answer, error) {
	id := strconv.FormatUint(a.asked.Add(1), 10)
	caller := subject{Kind: "system-bus-name", Details: map[string]dbus.Variant{"name": dbus.MakeVariant(r.Caller)}}
	details, flags := r.Details, uint32(0)
	if details == nil {
		details = map[string]string{}
	}
	if r.Interactive {
		flags = allowInteraction
	}
	call := a.object.CallWithContext(ctx, authority+".CheckAuthorization", 0, caller, r.Action, details, flags, id)
	if call.Err != nil {
		if ctx.Err() != nil {
			a.cancel(id)
		}
		return Denied, fmt.Errorf("asking polkit for %s: %w", r.Action, explain(call.Err))
	}
	answer, err := read(call.Body)
	if err != nil {
		return Denied, fmt.Errorf("asking polkit for %s: %w", r.Action, err)
	}
	return answer, nil
}

// cancel ends a check that nobody waits for any more. It waits for no answer:
// an error would change nothing.
func (a *Authority) cancel(id string) {
	_ = a.object.Go(authority+".CancelCheckAuthorization", dbus.FlagNoReplyExpected|dbus.FlagNoAutoStart, nil, id)
}

// read parses an answer. It does not use dbus.Store, which accepts other types
// than the interface has: only an exact answer may allow anything.
func read(body []any) (Answer, error) {
	if len(body) != 1 {
		return Denied, fmt.Errorf("%w: it has %d values", ErrNonsense, len(body))
	}
	fields, ok := body[0].([]any)
	if !ok || len(fields) != 3 {
		return Denied, fmt.Errorf("%w: it is a %T", ErrNonsense, body[0])
	}
	yes, ok1 := fields[0].(bool)
	challenge, ok2 := fields[1].(bool)
	details, ok3 := fields[2].(map[string]string)
	switch {
	case !ok1 || !ok2 || !ok3:
		return Denied, fmt.Errorf("%w: it has the types %T, %T, %T", ErrNonsense, fields[0], fields[1], fields[2])
	case yes && challenge:
		return Denied, fmt.Errorf("%w: it says both yes and that somebody has to authenticate first", ErrNonsense)
	case yes:
		return Allowed, nil
	case details["polkit.dismissed"] != "":
		return Dismissed, nil
	case challenge:
		return Challenge, nil
	}
	return Denied, nil
}

// explain turns the error of a call into one of the errors above, with a remedy.
func explain(err error) error {
	var e dbus.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: see whether polkitd hangs", ErrSilent)
	case !errors.As(err, &e):
		return err
	}
	const standard = "org.freedesktop.DBus.Error."
	switch name := strings.TrimPrefix(e.Name, standard); {
	case name == "ServiceUnknown", name == "NameHasNoOwner", name == "TimedOut",
		strings.HasPrefix(name, "Spawn."), strings.HasPrefix(name, "org.freedesktop.systemd1."):
		return fmt.Errorf("%w (%w): install or start it", ErrAbsent, e)
	case name == "NoReply", name == "Disconnected":
		return fmt.Errorf("%w: try again", ErrGone)
	case strings.HasSuffix(e.Error(), "is not registered"):
		return fmt.Errorf("%w: install its policy file in /usr/share/polkit-1/actions", ErrUnknownAction)
	}
	return e
}
