package zones

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotRunning means that no firewalld is on the bus, or that it left the bus
// before it answered.
var ErrNotRunning = errors.New("firewalld is not running")

// ErrZoneNotFound means that firewalld has no zone of the name asked for.
type ErrZoneNotFound struct{ Zone string }

func (e ErrZoneNotFound) Error() string {
	return fmt.Sprintf("firewalld has no zone %q: choose one that `firewall-cmd --get-zones` lists, or make it and reload firewalld", e.Zone)
}

// ErrZoneMissing means that firewalld runs but lacks the zone for networks
// without a zone of their own.
type ErrZoneMissing struct{ Zone string }

func (e ErrZoneMissing) Error() string {
	return fmt.Sprintf("firewalld has no zone %q, so it judges the bridge by its default zone: run `virtfirewallctl zones install`", e.Zone)
}

// ErrRuntimeChanges means that a reload of firewalld would lose changes which
// are not in its permanent configuration. Nothing was changed.
type ErrRuntimeChanges struct{ Changes []string }

func (e ErrRuntimeChanges) Error() string {
	changes := "a runtime change"
	if n := len(e.Changes); n != 1 {
		changes = fmt.Sprintf("%d runtime changes", n)
	}
	return fmt.Sprintf("reloading firewalld would lose %s: %s; keep them with `firewall-cmd --runtime-to-permanent` and try again, or lose them with --force (option Force)",
		changes, strings.Join(e.Changes, "; "))
}

// ErrInUse means that our zones cannot be removed, and holds what uses them.
// Nothing was changed.
type ErrInUse struct {
	Interfaces map[string]string // interface to the zone that it is bound to
	Policies   []string          // policies of others that name a zone of ours
}

func (e ErrInUse) Error() string {
	var uses []string
	for _, iface := range sortedKeys(e.Interfaces) {
		uses = append(uses, fmt.Sprintf("interface %s is in zone %s", iface, e.Interfaces[iface]))
	}
	for _, p := range e.Policies {
		uses = append(uses, fmt.Sprintf("policy %s names it", p))
	}
	remedy := "take the interfaces out of the zones first (`virtfirewallctl zones remove --unbind` does it)"
	if len(e.Policies) > 0 {
		remedy = "remove or change the policies first"
	}
	return fmt.Sprintf("the zones are in use: %s; %s", strings.Join(uses, ", "), remedy)
}
