package service

import "fmt"

// Kind is the sort of failure, one for each error name of the contract.
type Kind string

// The kinds; each is the last part of its D-Bus error name.
const (
	InvalidArgument     Kind = "InvalidArgument"
	NetworkExists       Kind = "NetworkExists"
	NetworkNotFound     Kind = "NetworkNotFound"
	BridgeInUse         Kind = "BridgeInUse"
	SubnetOverlap       Kind = "SubnetOverlap"
	BackendUnavailable  Kind = "BackendUnavailable"
	FirewalldNotRunning Kind = "FirewalldNotRunning"
	ZoneNotFound        Kind = "ZoneNotFound"
	ZonesNotInstalled   Kind = "ZonesNotInstalled"
	LimitExceeded       Kind = "LimitExceeded"
	ApplyFailed         Kind = "ApplyFailed"
	// NotSupported is org.freedesktop.DBus.Error.NotSupported.
	NotSupported Kind = "NotSupported"
)

// Error is a failure with its kind. Its message says what to do about it.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}
