package zones

import (
	"fmt"
	"slices"
)

// The names of libvirt's zones and policies, which our own have as well.
const (
	zoneLibvirt     = "libvirt"
	zoneRouted      = "libvirt-routed"
	policyRoutedOut = "libvirt-routed-out"
)

// Installed is what firewalld has at one moment; the zero value is a host on
// which it does not run.
type Installed struct {
	Running bool
	// Life identifies the run of firewalld, as long as it is watched.
	Life     string
	Zones    []string
	Policies []string // empty also for firewalld before 0.9, which has none
}

// Choose returns the zone that a network's bridge belongs in, "" for none. want
// is the zone that the network asks for, "" if it does not; mode is its
// forward mode: nat, route, open or isolated.
//
// Errors are ErrNotRunning and ErrZoneNotFound for a zone that is asked for,
// and ErrZoneMissing where firewalld lacks the one for the mode.
func Choose(want, mode string, have Installed) (string, error) {
	switch {
	case want != "" && !have.Running:
		return "", fmt.Errorf("choosing zone %q: %w: start it, or leave the zone out", want, ErrNotRunning)
	case want != "" && !slices.Contains(have.Zones, want):
		return "", ErrZoneNotFound{Zone: want}
	case want != "":
		return want, nil
	case mode == "open", !have.Running:
		return "", nil
	case mode == "route" && slices.Contains(have.Policies, policyRoutedOut) && slices.Contains(have.Zones, zoneRouted):
		return zoneRouted, nil
	case slices.Contains(have.Zones, zoneLibvirt):
		return zoneLibvirt, nil
	}
	return "", ErrZoneMissing{Zone: zoneLibvirt}
}
