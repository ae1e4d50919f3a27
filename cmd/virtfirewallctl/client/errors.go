package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/godbus/dbus/v5"
)

// The classes of failure; test for them with errors.Is.
var (
	ErrNotFound      = errors.New("not found")
	ErrNotAuthorised = errors.New("not authorised")
	ErrUnreachable   = errors.New("service not reachable")
)

// failure is an error with a class and a sentence for people.
type failure struct {
	class error
	text  string
	// start means that the bus may have been unable to start the service.
	start bool
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.class }

func unreachable(format string, args ...any) error {
	return &failure{class: ErrUnreachable, text: fmt.Sprintf(format, args...)}
}

func notStarted(message string) error {
	return &failure{class: ErrUnreachable, text: "starting virtfirewalld: " + message, start: true}
}

const (
	notAnswering = "the service stopped before it answered; see journalctl -u virtfirewalld"
	notAllowed   = "the bus does not let you call virtfirewalld; run the command as root"
)

// describe describes a method for users who know commands, not D-Bus.
func describe(method string) string {
	switch method {
	case "AddNetworkFromXML":
		return "adding the network"
	case "RemoveNetwork":
		return "removing the network"
	case "Preview":
		return "previewing the network's rules"
	case "SetBackend":
		return "changing the backend"
	case "Reload":
		return "reloading"
	case "Reapply":
		return "comparing the host with what should be there"
	case "InstallZones":
		return "installing the zones"
	case "RemoveZones":
		return "removing the zones"
	case "BindInterface":
		return "putting the bridge into its zone"
	case "UnbindInterface":
		return "taking the bridge out of its zone"
	case "Diagnose":
		return "diagnosing the host"
	case "GetRuleset":
		return "reading the network's rules"
	case "GetCounters":
		return "reading the network's counters"
	case "AddMatch":
		return "following the service"
	}
	return "reading the networks"
}

// inDocumentWords replaces the setting that an error begins with by its element
// in a document: this program sends settings only as documents.
func inDocumentWords(message string) string {
	setting, rest, _ := strings.Cut(message, ": ")
	for _, w := range []struct{ setting, document string }{
		{"Name", "<name>"}, {"UUID", "<uuid>"}, {"Bridge", "<bridge>"}, {"ForwardMode", "<forward>"}, {"ForwardDevices", "<forward>"},
		{"Addresses", "<ip>"}, {"Routes", "<route>"}, {"NATAddressRange", "<nat>"}, {"NATIPv6AddressRange", "<nat> in <metadata>"},
		{"NATPortRange", "<nat>"}, {"NATIPv6", "<nat>"}, {"PortForwards", "<forward> in <metadata>"}, {"Zone", "<bridge>"},
	} {
		if setting == w.setting {
			return w.document + ": " + rest
		}
	}
	return message
}

// explain turns godbus's error for a failed call into a failure.
func explain(method string, err error) error {
	var e dbus.Error
	switch {
	case errors.As(err, &e):
		return explainReply(method, e)
	case errors.Is(err, context.DeadlineExceeded):
		return unreachable("%s: virtfirewalld did not answer in time", describe(method))
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", describe(method), err)
	case errors.Is(err, dbus.ErrClosed), errors.Is(err, io.EOF):
		return unreachable("%s: the connection to the system bus is closed", describe(method))
	}
	return fmt.Errorf("%s: %w", describe(method), err)
}

func explainReply(method string, e dbus.Error) error {
	message := e.Error()
	name, ours := strings.CutPrefix(e.Name, errorPrefix)
	if !ours {
		name = strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.")
	}
	switch name {
	case "NetworkNotFound", "ZoneNotFound", "PortForwardNotFound", "UnknownObject":
		return &failure{class: ErrNotFound, text: message}
	case "AccessDenied":
		// The texts of dbus-daemon and dbus-broker begin so when their own policy
		// refuses a message; the rest is of no use to a person.
		if strings.HasPrefix(message, "Rejected send message") || strings.HasPrefix(message, "Sender is not authorized") {
			message = notAllowed
		}
		return &failure{class: ErrNotAuthorised, text: message}
	case "InteractiveAuthorizationRequired":
		return &failure{class: ErrNotAuthorised, text: message}
	case "ServiceUnknown", "NameHasNoOwner":
		return &failure{class: ErrUnreachable, text: notThere, start: true}
	case "UnknownMethod", "UnknownInterface":
		return &failure{text: describe(method) + ": the service that runs is older than this program and cannot do it; restart it: systemctl restart virtfirewalld"}
	case "NoReply", "Disconnected":
		return unreachable("%s", notAnswering)
	case "TimedOut": // the bus's error for an activation that does not end; Timeout is the service's
		return notStarted(message)
	}
	if ours {
		message = inDocumentWords(message)
	}
	if e.Error() == e.Name || message == "" {
		message = fmt.Sprintf("%s: virtfirewalld answered %s", describe(method), e.Name)
	}
	if strings.HasPrefix(name, "Spawn.") || strings.HasPrefix(e.Name, "org.freedesktop.systemd1.") {
		return notStarted(message)
	}
	return &failure{text: message, start: !ours}
}
