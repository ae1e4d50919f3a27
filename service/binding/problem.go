package binding

import (
	"errors"
	"fmt"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// RemedySilent is what to do about a firewalld that does not answer.
const RemedySilent = "see `systemctl status firewalld`, and `systemctl restart firewalld` if need be"

// errQueued is why a bridge is not yet in the zone, "" for none, that it belongs in.
type errQueued struct{ zone string }

func (e errQueued) Error() string {
	if e.zone == "" {
		return "firewalld has yet to take it out of its zone, and moves one bridge after another"
	}
	return fmt.Sprintf("firewalld has yet to move it into zone %q, and moves one bridge after another", e.zone)
}

// problem returns what keeps the bridge from its zone.
func (b *Bridge) problem(err error) finding.Finding {
	f := finding.Finding{Network: b.Network, Evidence: err.Error()}
	var (
		missing  zones.ErrZoneMissing
		notFound zones.ErrZoneNotFound
		queued   errQueued
	)
	switch {
	case errors.As(err, &queued):
		f.ID, f.Remedy = finding.ZoneNotBound, "wait, its turn comes by itself"
		f.Summary = fmt.Sprintf("bridge %s is not in its firewalld zone: %v", b.Iface, err)
	case errors.As(err, &missing):
		f.ID, f.Remedy = finding.ZoneMissing, "run `virtfirewallctl zones install`"
		f.Summary = fmt.Sprintf("firewalld has no zone %q, so it judges bridge %s by its default zone", missing.Zone, b.Iface)
	case errors.As(err, &notFound):
		f.ID, f.Remedy = finding.ZoneMissing, "choose one that `firewall-cmd --get-zones` lists, or make it and run `firewall-cmd --reload`"
		f.Summary = fmt.Sprintf("firewalld has no zone %q, which bridge %s is to be in", notFound.Zone, b.Iface)
	case errors.Is(err, zones.ErrNotRunning):
		f.ID, f.Remedy = finding.ZoneNotBound, "run `systemctl start firewalld`, or update the network to name no zone"
		f.Summary = fmt.Sprintf("bridge %s is not in zone %q, which the network names: firewalld is not running", b.Iface, b.Zone)
	case IsSilence(err):
		f.ID, f.Remedy = finding.FirewalldSilent, RemedySilent+"; the bridge is bound as soon as it answers"
		f.Summary = fmt.Sprintf("firewalld does not answer, so bridge %s is not known to be in its zone", b.Iface)
	default:
		f.ID, f.Remedy = finding.ZoneNotBound, "see `journalctl -u firewalld`; it is tried again by itself"
		f.Summary = fmt.Sprintf("bridge %s is not in its firewalld zone: %v", b.Iface, err)
	}
	return f
}
