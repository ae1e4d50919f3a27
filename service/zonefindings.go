package service

import (
	"errors"
	"fmt"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

const remedySilent = "see `systemctl status firewalld`, and `systemctl restart firewalld` if need be"

// zoneFinding is what keeps a network's bridge from its zone.
func (m *managed) zoneFinding(err error) finding.Finding {
	f := finding.Finding{Network: m.net.Name, Evidence: err.Error()}
	var (
		missing  zones.ErrZoneMissing
		notFound zones.ErrZoneNotFound
	)
	switch {
	case errors.As(err, &missing):
		f.ID, f.Remedy = finding.ZoneMissing, "run `virtfirewallctl zones install`"
		f.Summary = fmt.Sprintf("firewalld has no zone %q, so it judges bridge %s by its default zone", missing.Zone, m.iface())
	case errors.As(err, &notFound):
		f.ID, f.Remedy = finding.ZoneMissing, "choose one that `firewall-cmd --get-zones` lists, or make it and run `firewall-cmd --reload`"
		f.Summary = fmt.Sprintf("firewalld has no zone %q, which bridge %s is to be in", notFound.Zone, m.iface())
	case errors.Is(err, zones.ErrNotRunning):
		f.ID, f.Remedy = finding.ZoneNotBound, "run `systemctl start firewalld`, or update the network to name no zone"
		f.Summary = fmt.Sprintf("bridge %s is not in zone %q, which the network names: firewalld is not running", m.iface(), m.net.Zone)
	case isSilence(err):
		f.ID, f.Remedy = finding.FirewalldSilent, remedySilent+"; the bridge is bound as soon as it answers"
		f.Summary = fmt.Sprintf("firewalld does not answer, so bridge %s is not known to be in its zone", m.iface())
	default:
		f.ID, f.Remedy = finding.ZoneNotBound, "see `journalctl -u firewalld`; it is tried again by itself"
		f.Summary = fmt.Sprintf("bridge %s is not in its firewalld zone: %v", m.iface(), err)
	}
	return f
}

// isSilence reports whether an error is that firewalld did not answer, be it
// now or before.
func isSilence(err error) bool { return zones.IsSilence(err) || errors.Is(err, errMute) }

// noteLeaving reports bridges that have yet to leave their zones.
func (s *Service) noteLeaving() {
	bridges := s.debts.bridges()
	if len(bridges) == 0 {
		s.noteHost(fromZone)
		return
	}
	s.noteHost(fromZone, finding.Finding{
		ID: finding.FirewalldSilent, Remedy: remedySilent + "; the rules go as soon as it answers",
		Summary: fmt.Sprintf("firewalld does not answer, so what has left its network is still in its zone, and under its rules: %s", strings.Join(bridges, ", ")),
	})
}

// noteBrokenRecords reports records that were put aside at the start.
func (s *Service) noteBrokenRecords(from source, broken []store.FileError, remedy string) {
	fs := make([]finding.Finding, len(broken))
	for i, b := range broken {
		fs[i] = finding.Finding{ID: finding.StateFileBroken, Summary: b.Error(), Remedy: remedy}
	}
	s.noteHost(from, fs...)
}
