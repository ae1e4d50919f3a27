package zones

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	busInterface  = "org.freedesktop.DBus"
	propertiesGet = "org.freedesktop.DBus.Properties.Get"
	propertiesAll = "org.freedesktop.DBus.Properties.GetAll"

	busName    = "org.fedoraproject.FirewallD1"
	rootPath   = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	configPath = rootPath + "/config"

	rootInterface         = busName
	zoneInterface         = busName + ".zone"
	policyInterface       = busName + ".policy"
	configInterface       = busName + ".config"
	configZoneInterface   = configInterface + ".zone"
	configPolicyInterface = configInterface + ".policy"
)

// call calls a method of firewalld and stores what it returns.
func (c *Client) call(ctx context.Context, path dbus.ObjectPath, method string, args []any, out ...any) error {
	return c.callFor(ctx, c.timeout, path, method, args, out...)
}

// callFor is call for a firewalld that may be silent for so long. The time that it
// takes to answer others does not count: it answers one after another, and one
// answer may take it seconds.
func (c *Client) callFor(ctx context.Context, limit time.Duration, path dbus.ObjectPath, method string, args []any, out ...any) error {
	inner, cancel := context.WithTimeoutCause(ctx, limit+turnLimit, ErrSilent{Limit: limit + turnLimit})
	defer cancel()
	done := c.responses.callStarted()
	inner, stop := c.responses.limitSilence(inner, limit)
	call := c.conn.Object(busName, path).CallWithContext(inner, method, dbus.FlagNoAutoStart, args...)
	stop()
	done(inner.Err() == nil)
	if call.Err == nil {
		return call.Store(out...)
	}
	var s ErrSilent
	if inner.Err() != nil && errors.As(context.Cause(inner), &s) {
		return s
	}
	return explain(call.Err)
}

// ErrSilent means that firewalld did not answer within a limit. It may have done
// what it was asked for all the same, or may do it later.
type ErrSilent struct{ Limit time.Duration }

func (e ErrSilent) Error() string {
	return fmt.Sprintf("firewalld did not answer within %s, see `systemctl status firewalld`", e.Limit)
}

// Unwrap makes the error a context.DeadlineExceeded.
func (e ErrSilent) Unwrap() error { return context.DeadlineExceeded }

// IsSilence reports whether firewalld is on the bus and did not answer in time.
func IsSilence(err error) bool {
	var s ErrSilent
	return errors.As(err, &s)
}

// refusal is an error with which firewalld, or the bus for it, answered.
type refusal struct {
	name string // the D-Bus error's
	code string // firewalld's own, such as INVALID_ZONE, or ""
	text string
}

func (r refusal) Error() string { return "firewalld answered: " + r.text }

// IsRefusal reports whether firewalld answered that it did not do what it was
// asked for.
func IsRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// explain turns a D-Bus error into a refusal, or ErrNotRunning where firewalld
// did not answer. The bus returns NoReply when the callee dies before it answers.
func explain(err error) error {
	var e dbus.Error
	if !errors.As(err, &e) {
		return err
	}
	r := refusal{name: e.Name, text: e.Error()}
	if code, _, _ := strings.Cut(r.text, ":"); isCode(code) {
		r.code = code
	}
	switch strings.TrimPrefix(e.Name, busInterface+".Error.") {
	case "ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected":
		return ErrNotRunning
	}
	if r.code == "NOT_RUNNING" {
		return ErrNotRunning
	}
	return r
}

func isCode(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// hasCode reports whether firewalld answered with one of these codes.
func hasCode(err error, codes ...string) bool {
	var r refusal
	return errors.As(err, &r) && slices.Contains(codes, r.code)
}

func isUnknownMethod(err error) bool {
	var r refusal
	if !errors.As(err, &r) {
		return false
	}
	switch strings.TrimPrefix(r.name, busInterface+".Error.") {
	case "UnknownMethod", "UnknownInterface", "UnknownObject":
		return true
	}
	return false
}

// isMissingProperty reports whether firewalld lacks a property. It recognises
// the standard errors and firewalld's own, whose name is that of a Python
// exception.
func isMissingProperty(err error) bool {
	var r refusal
	if !errors.As(err, &r) {
		return false
	}
	return isUnknownMethod(err) ||
		r.name == busInterface+".Error.UnknownProperty" ||
		strings.Contains(r.text, "does not exist")
}

// inParallel runs f for 0 to n-1, a few at a time, and returns the first error.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
