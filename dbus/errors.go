package dbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Standard error names. godbus defines some of them, but with names of its own.
const (
	errUnknownObject    = "org.freedesktop.DBus.Error.UnknownObject"
	errUnknownInterface = "org.freedesktop.DBus.Error.UnknownInterface"
	errUnknownMethod    = "org.freedesktop.DBus.Error.UnknownMethod"
	errUnknownProperty  = "org.freedesktop.DBus.Error.UnknownProperty"
	errPropertyReadOnly = "org.freedesktop.DBus.Error.PropertyReadOnly"
	errInvalidArgs      = "org.freedesktop.DBus.Error.InvalidArgs"
	errLimitsExceeded   = "org.freedesktop.DBus.Error.LimitsExceeded"
	errNotSupported     = "org.freedesktop.DBus.Error.NotSupported"
	errTimeout          = "org.freedesktop.DBus.Error.Timeout"
	errFailed           = "org.freedesktop.DBus.Error.Failed"
	errAccessDenied     = "org.freedesktop.DBus.Error.AccessDenied"
	errInteractive      = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
)

// maxErrorText limits how much of what a caller sent its error can contain.
const maxErrorText = 4096

// busError is an error with a D-Bus error name of its own.
type busError struct{ name, text string }

func (e *busError) Error() string { return e.text }

func refuse(name, format string, args ...any) error {
	return &busError{name: name, text: fmt.Sprintf(format, args...)}
}

// invalid returns an error of one of the contract's own kinds.
func invalid(kind service.Kind, format string, args ...any) error {
	return &service.Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// errorName is the only mapping from errors to D-Bus error names. The first case
// that matches decides.
func errorName(err error) string {
	var own *busError
	var svc *service.Error
	switch {
	case errors.As(err, &own):
		return own.name
	case errors.As(err, &svc):
		return kindName(svc.Kind)
	case errors.Is(err, ErrInteractionRequired):
		return errInteractive
	case errors.Is(err, ErrAccessDenied):
		return errAccessDenied
	case errors.Is(err, network.ErrLimit):
		return kindName(service.LimitExceeded)
	case errors.Is(err, network.ErrNotSupported):
		return kindName(service.NotSupported)
	case errors.Is(err, network.ErrInvalid):
		return kindName(service.InvalidArgument)
	case errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	}
	return kindName(service.ApplyFailed)
}

func kindName(k service.Kind) string {
	if k == service.NotSupported {
		return errNotSupported
	}
	return errorPrefix + string(k)
}

func toBusError(err error) *godbus.Error {
	text := err.Error()
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + " ..."
	}
	return godbus.NewError(errorName(err), []any{clean(text)})
}

// clean returns s as a string that D-Bus can carry: one that is not UTF-8 or
// contains a NUL would not be sent at all, and the caller would wait for ever.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
