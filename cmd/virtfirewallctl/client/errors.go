package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/godbus/dbus/v5"
)

// The classes of failure that a caller may want to tell apart; test for them
// with errors.Is.
var (
	ErrNotFound      = errors.New("not found")
	ErrNotAuthorised = errors.New("not authorised")
	ErrUnreachable   = errors.New("service not reachable")
)

// failure is an error with a class and a sentence for people.
type failure struct {
	class error
	text  string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.class }

func unreachable(format string, args ...any) error {
	return &failure{ErrUnreachable, fmt.Sprintf(format, args...)}
}

const (
	notAnswering = "the service stopped before it answered; see journalctl -u virtfirewalld"
	notThere     = "virtfirewalld is not running; start it with systemctl start virtfirewalld"
	notAllowed   = "the bus does not let you call virtfirewalld; run the command as root"
)

// explain turns what godbus gives for a failed call into a failure.
func explain(method string, err error) error {
	var e dbus.Error
	switch {
	case errors.As(err, &e):
		return explainReply(method, e)
	case errors.Is(err, context.DeadlineExceeded):
		return unreachable("calling %s: virtfirewalld did not answer in time", method)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("calling %s: %w", method, err)
	case errors.Is(err, dbus.ErrClosed), errors.Is(err, io.EOF):
		return unreachable("calling %s: the connection to the system bus is closed", method)
	}
	return fmt.Errorf("calling %s: %w", method, err)
}

func explainReply(method string, e dbus.Error) error {
	said := e.Error()
	name, ours := strings.CutPrefix(e.Name, errorPrefix)
	if !ours {
		name = strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.")
	}
	switch name {
	case "NetworkNotFound", "ZoneNotFound", "PortForwardNotFound", "UnknownObject":
		return &failure{ErrNotFound, said}
	case "AccessDenied":
		// This is how dbus-daemon and dbus-broker begin when their own policy
		// refuses a message; what follows is of no use to a person.
		if strings.HasPrefix(said, "Rejected send message") || strings.HasPrefix(said, "Sender is not authorized") {
			said = notAllowed
		}
		return &failure{ErrNotAuthorised, said}
	case "InteractiveAuthorizationRequired":
		return &failure{ErrNotAuthorised, said}
	case "ServiceUnknown", "NameHasNoOwner":
		return unreachable("%s", notThere)
	case "NoReply", "Disconnected":
		return unreachable("%s", notAnswering)
	case "TimedOut": // the bus's word for an activation that does not end; Timeout is the service's
		return unreachable("starting virtfirewalld: %s", said)
	}
	if e.Error() == e.Name || said == "" {
		said = fmt.Sprintf("calling %s: virtfirewalld answered %s", method, e.Name)
	}
	if strings.HasPrefix(name, "Spawn.") || strings.HasPrefix(e.Name, "org.freedesktop.systemd1.") {
		return unreachable("starting virtfirewalld: %s", said)
	}
	return &failure{nil, said}
}
