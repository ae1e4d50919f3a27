package service

import (
	"context"
	"maps"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
)

// source is who looks at a network or at the host. Each replaces all of its own
// findings at once, so that what is no longer so goes by itself.
type source string

const (
	fromForwarding      source = "forwarding"
	fromForwardingFight source = "forwarding-fight"
	fromAdvertisements  source = "advertisements"
	fromZone            source = "zone"         // of the host: a firewalld that does not answer
	fromZoneRecords     source = "zone-records" // what was remembered of zones
	fromLeaving         source = "leaving"      // of bridges that have yet to leave theirs
	fromLibvirt         source = "libvirt"
	fromFile            source = "file"
	fromDevices         source = "devices"
	fromSubnets         source = "subnets"
	fromFight           source = "fight"
	fromHost            source = "host"
	fromTable           source = "table"
	fromForeign         source = "foreign"
)

// noting returns a copy of the network with a source's findings replaced.
func (m *managed) noting(from source, fs ...finding.Finding) *managed {
	next := *m
	next.noted = replaceFindings(m.noted, from, m.net.Name, fs)
	return &next
}

// notedBeside returns what was noted of the network by all but one source.
func (m *managed) notedBeside(from source) map[source][]finding.Finding {
	return replaceFindings(m.noted, from, m.net.Name, nil)
}

// replaceFindings returns a map with one source's findings replaced. Maps that
// were published are never written.
func replaceFindings(all map[source][]finding.Finding, from source, network string, fs []finding.Finding) map[source][]finding.Finding {
	next := maps.Clone(all)
	if len(fs) == 0 {
		delete(next, from)
		return next
	}
	if next == nil {
		next = make(map[source][]finding.Finding, 1)
	}
	next[from] = slices.Clone(fs)
	for i := range next[from] {
		next[from][i].Network = network
	}
	return next
}

// note replaces what a source found of a network, and publishes it where that
// is another thing. The caller holds the change lock.
func (ns *networks) note(name string, from source, fs ...finding.Finding) {
	ns.edit(name, func(m *managed) *managed {
		next := m.noting(from, fs...)
		if slices.Equal(next.noted[from], m.noted[from]) {
			return m
		}
		return next
	})
}

// noteHost replaces what a source found of the host.
func (ns *networks) noteHost(from source, fs ...finding.Finding) {
	ns.EditHost(func(h hostState) hostState {
		h.noted = replaceFindings(h.noted, from, "", fs)
		return h
	}, func(old, next hostState) {
		if !slices.Equal(old.noted[from], next.noted[from]) {
			ns.notify(FindingsChanged{})
		}
	})
}

// Diagnose returns everything that was found of the host and of the networks,
// what matters most first.
func (s *Service) Diagnose(context.Context) ([]finding.Finding, error) {
	var all []finding.Finding
	for _, fs := range s.networks.Host().noted {
		all = append(all, fs...)
	}
	for _, m := range s.networks.All() {
		all = append(all, m.findings()...)
	}
	finding.Sort(all)
	return all, nil
}
