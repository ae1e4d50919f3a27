package dbus

import (
	"context"
	"errors"
)

// The actions that a caller needs the right to.
const (
	actionPrefix = "org.virtfirewall.networkfirewall1."

	ActionRead               = actionPrefix + "read"
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
// It is asked before anything is done.
type Authorizer interface {
	// User is the user that the name's owner connected as.
	User(ctx context.Context, sender string) (uid uint32, err error)
	// Check reports whether the owner may do all of asks. interactive says that
	// the caller is ready to wait while a person is asked.
	Check(ctx context.Context, sender string, interactive bool, asks []ask) error
}

// ask is one thing that a caller needs the right to.
type ask struct {
	action string
	// details are what is known of the object: "network", "bridge", "subnets"
	// and so on, and more where a change has two sides.
	details map[string]string
}
