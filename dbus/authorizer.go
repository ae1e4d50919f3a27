package dbus

import (
	"context"
	"errors"
)

// The actions that need authorisation.
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

// The two ways in which an Authorizer denies. Any other error of it counts as a
// denial as well.
var (
	ErrAccessDenied        = errors.New("access denied")
	ErrInteractionRequired = errors.New("interactive authorisation required")
)

// Authorizer decides whether the owner of a unique bus name may do something.
// It is asked before anything is done.
type Authorizer interface {
	// User returns the user that the name's owner connected as.
	User(ctx context.Context, sender string) (uid uint32, err error)
	// Check returns nil if the owner may do all that is requested. interactive
	// means that the caller is ready to wait while a person is asked.
	Check(ctx context.Context, sender string, interactive bool, requests []authzRequest) error
}

// authzRequest is one action that a caller needs authorisation for.
type authzRequest struct {
	action string
	// details describe the object: "network", "bridge", "subnets" and so on,
	// and for a change also what it starts from, as "old_bridge" and so on.
	details map[string]string
}
