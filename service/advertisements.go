package service

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
)

// Advertisements is how the host takes router advertisements on bridges, which
// are given by interface index.
type Advertisements interface {
	// Silence has the host ignore them; again reports that it was to before, and
	// that another program had switched them on.
	Silence(index int) (again bool, err error)
	// Restore puts back what was set before.
	Restore(index int) error
	Silenced() []int
}

// advertiser keeps the host from following router advertisements of guests.
type advertiser struct {
	bridges  Advertisements
	networks *networks
	log      logger
}

// ignore has the host ignore router advertisements on the bridges that
// transitions bring, and restores what was set on those that they leave. It
// returns the transitions with what was found. The caller holds the lock.
//
// It is done for networks of every forward mode, as libvirt does it: also where
// the host's own rules decide what passes, no guest is the host's router.
func (ad *advertiser) ignore(ctx context.Context, ts []transition) []transition {
	governed := map[int]bool{}
	for _, t := range ts {
		governed[t.next.governed()] = true
	}
	for _, t := range ts {
		if index := t.old.governed(); index != 0 && !governed[index] {
			ad.restore(ctx, index)
		}
	}
	out := make([]transition, len(ts))
	for i, t := range ts {
		if t.next != nil {
			_, fs := ad.ignoreOn(t.next)
			t.next = t.next.noting(fromAdvertisements, fs...)
		}
		out[i] = t
	}
	return out
}

// restore puts back what was set on a bridge that is no network's
// any more.
func (ad *advertiser) restore(ctx context.Context, index int) {
	if err := ad.bridges.Restore(index); err != nil {
		ad.log.complain(ctx, slog.LevelWarn, "a bridge's settings for router advertisements are not as they were before", err)
	}
}

// ignoreOn has the host ignore advertisements on the bridge of one network.
// again reports that another program had switched them on.
func (ad *advertiser) ignoreOn(m *managed) (again bool, fs []finding.Finding) {
	index := m.governed()
	if index == 0 {
		return false, nil
	}
	again, err := ad.bridges.Silence(index)
	if err == nil {
		return again, nil
	}
	name := m.iface()
	return false, []finding.Finding{{ID: finding.AdvertisementsHeard,
		Summary: fmt.Sprintf("the host may follow router advertisements of guests on %s: %v", name, err),
		Remedy:  fmt.Sprintf("`sysctl -w net/ipv6/conf/%s/accept_ra=0 net/ipv6/conf/%s/autoconf=0`, then reapply", name, name)}}
}

// ignoreAgain checks one network's bridge, and reports whether another program had
// switched advertisements on. The caller holds the change lock.
func (ad *advertiser) ignoreAgain(m *managed) (cause string, repaired bool) {
	if ad.networks.Uncertain(m.net.Name) {
		return "", false // what ends the change looks at it
	}
	again, fs := ad.ignoreOn(m)
	ad.networks.note(m.net.Name, fromAdvertisements, fs...)
	if !again {
		return "", false
	}
	cause = fmt.Sprintf("router advertisements had been switched on for its bridge %s", m.iface())
	ad.networks.repaired(m.net.Name, cause)
	return cause, true
}

// heard looks at the bridges that an advertisement was accepted on.
func (ad *advertiser) heard(index int) {
	for _, m := range ad.networks.ByIndex(index) {
		ad.ignoreAgain(m)
	}
}

// reapply compares all bridges, also those that have no network
// any more.
func (ad *advertiser) reapply(ctx context.Context, mended map[string]string) {
	governed := map[int]bool{}
	for _, m := range ad.networks.All() {
		governed[m.governed()] = true
		if cause, repaired := ad.ignoreAgain(m); repaired && mended[m.net.Name] == "" {
			mended[m.net.Name] = cause
		}
	}
	for _, index := range ad.bridges.Silenced() {
		if !governed[index] {
			ad.restore(ctx, index)
		}
	}
}
