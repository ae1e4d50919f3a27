package dbus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	godbus "github.com/godbus/dbus/v5"
)

// The actions that a caller needs the right to. Reading needs none.
const (
	actionPrefix = "org.virtfirewall.networkfirewall1."

	ActionManageNetworks     = actionPrefix + "manage-networks"
	ActionManagePortForwards = actionPrefix + "manage-port-forwards"
	ActionManageZones        = actionPrefix + "manage-zones"
	ActionChooseBackend      = actionPrefix + "choose-backend"
	ActionReload             = actionPrefix + "reload"
	ActionDiagnose           = actionPrefix + "diagnose"
)

// The two ways in which an Authorizer says no. Any other error of it is a no
// as well.
var (
	ErrAccessDenied        = errors.New("access denied")
	ErrInteractionRequired = errors.New("interactive authorisation required")
)

// Authorizer decides whether the owner of a unique bus name may do something.
// It is asked before anything is done. interactive says that the caller is
// ready to wait while a person is asked. details are what is known of the
// object: "network", "bridge", "forward_mode", "zone".
type Authorizer interface {
	Check(ctx context.Context, sender string, interactive bool, action string, details map[string]string) error
}

// RootOnly is the Authorizer for hosts without an authority to ask: user 0
// may do everything, others may only read.
type RootOnly struct {
	conn *godbus.Conn

	mu   sync.Mutex
	uids map[string]uint32
}

// maxKnownCallers bounds the memory that callers can take by coming and going.
const maxKnownCallers = 1024

// NewRootOnly makes a RootOnly that asks the bus behind conn who a caller is.
func NewRootOnly(conn *godbus.Conn) *RootOnly {
	return &RootOnly{conn: conn, uids: make(map[string]uint32)}
}

// Check is part of Authorizer.
func (r *RootOnly) Check(ctx context.Context, sender string, _ bool, action string, _ map[string]string) error {
	uid, err := r.uid(ctx, sender)
	if err != nil {
		return fmt.Errorf("%w: finding out who %s is: %w", ErrAccessDenied, sender, err)
	}
	if uid != 0 {
		return fmt.Errorf("%w: %s needs user root, the caller is user %d; use sudo", ErrAccessDenied, action, uid)
	}
	return nil
}

// uid is the user that connected as sender. The bus took it from the kernel
// when the connection was made, and it never gives a unique name again, so
// that an answer stays true for as long as the bus runs.
func (r *RootOnly) uid(ctx context.Context, sender string) (uint32, error) {
	r.mu.Lock()
	uid, ok := r.uids[sender]
	r.mu.Unlock()
	if ok {
		return uid, nil
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	err := r.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.uids) >= maxKnownCallers {
		clear(r.uids)
	}
	r.uids[sender] = uid
	return uid, nil
}
