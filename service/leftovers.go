package service

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// leftoverPause is how long networks gather before what libvirt left for them
// is looked for: where there is anything of iptables, each look runs programs.
const leftoverPause = 50 * time.Millisecond

// A libvirt that runs tells nobody when it makes its rules again, and of the
// legacy variant the kernel tells nothing either: so it is looked at again and
// again, but for no more than one part in lookShare of the time.
const (
	lookPause = 2 * time.Second
	lookShare = 50
)

// clearLeftovers takes out what libvirt left behind for our networks, whenever
// it is poked and while libvirt runs, and again where it failed, until the
// context ends.
func (s *Service) clearLeftovers(ctx context.Context) {
	pause := lookPause
	var again <-chan time.Time // nil while nothing can change by itself
	var last failure
	for {
		if again == nil && (last.failed || s.watchesLibvirt()) {
			again = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.libvirt:
			continue
		case <-again:
		case <-s.foreign:
			select {
			case <-ctx.Done():
				return
			case <-time.After(leftoverPause):
			}
		}
		again = nil
		begin := time.Now()
		s.withLock(ctx, func(one context.Context) {
			begin = time.Now()
			last = s.complainOnce(ctx, last, s.clearOnce(one))
		})
		pause = max(lookPause, lookShare*time.Since(begin))
	}
}

// followLibvirt tells clearLeftovers when libvirt starts, so that a host where
// it does not run is left asleep. Where that cannot be followed it is looked at
// again and again.
func (s *Service) followLibvirt(ctx context.Context) {
	changed := func() { poke(s.libvirt) }
	if err := s.Leftovers.Follow(ctx, changed); err != nil {
		s.complain(ctx, slog.LevelWarn, "looking every two seconds whether libvirt has started", err)
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(lookPause):
			changed()
		}
	}
}

// failure is how the last look ended.
type failure struct {
	failed bool
	told   string // the complaint: the next look may well fail like this one
}

// complainOnce logs a failure that is not the first, for a moment in which others
// change all rules passes, and that is not what was told already.
func (s *Service) complainOnce(ctx context.Context, last failure, err error) failure {
	if err == nil || ctx.Err() != nil {
		return failure{}
	}
	if last.failed && err.Error() != last.told {
		s.Log.Warn("what libvirt left behind may still be there", "cause", err.Error())
		last.told = err.Error()
	}
	last.failed = true
	return last
}

// watchesLibvirt says whether what libvirt has may be other than when it was
// looked at: it runs, or it was said to manage a network.
func (s *Service) watchesLibvirt() bool {
	running, err := s.Leftovers.Running()
	return err != nil || running || slices.ContainsFunc(s.all(), func(m *managed) bool { return len(m.noted[fromLibvirt]) > 0 })
}

// clearOnce looks once. Where libvirt runs and has made its rules again it is
// libvirt that manages the network: the service says so and does not fight it.
func (s *Service) clearOnce(ctx context.Context) error {
	var nets []network.Network
	cleared := map[string]bool{}
	for _, m := range s.all() {
		if m.hasRules {
			nets = append(nets, m.net)
			cleared[m.net.Name] = m.cleared
		}
	}
	if len(nets) == 0 {
		return nil
	}
	ours := neighbour.VariantNone
	if s.active.Name() == choice.IPTables {
		ours = neighbour.Variant(s.Backends.Variant())
	}
	present, err := s.Leftovers.Present(ctx, nets, ours)
	if err != nil {
		return err
	}
	running, err := s.Leftovers.Running()
	if err != nil {
		return err
	}
	back := map[string]bool{}
	nets = slices.DeleteFunc(nets, func(n network.Network) bool {
		back[n.Name] = present[n.Name] && cleared[n.Name] && running
		return !present[n.Name] || back[n.Name]
	})
	s.noteLibvirt(back)
	if err := s.unite(ctx, running); err != nil {
		return err
	}
	if len(nets) == 0 {
		return nil
	}
	report, err := s.Leftovers.Remove(ctx, nets, ours)
	if !report.Empty() {
		s.Log.Info("took out what libvirt left for networks that are governed here", "removed", report.String())
	}
	if err != nil {
		return err
	}
	for _, n := range nets {
		if m, err := s.known(n.Name); err == nil {
			s.noteCleared(m)
		}
	}
	return nil
}

func (s *Service) noteCleared(m *managed) {
	next := *m
	next.cleared = true
	s.publish([]transition{{old: m, next: &next}})
}

// unite makes one of the rules that libvirt has for a network and those of the
// iptables backend, which look the same, once for each network that comes while
// libvirt runs: the backend puts new ones in without a look.
func (s *Service) unite(ctx context.Context, running bool) error {
	if !running || s.active.Name() != choice.IPTables {
		return nil
	}
	fresh := slices.DeleteFunc(s.all(), func(m *managed) bool { return m.cleared || !m.hasRules })
	if len(fresh) == 0 {
		return nil
	}
	if _, err := s.active.Sync(ctx, s.members()); err != nil {
		return err
	}
	for _, m := range fresh {
		s.noteCleared(m)
	}
	return nil
}

// noteLibvirt says of networks whether libvirt manages them as well.
func (s *Service) noteLibvirt(back map[string]bool) {
	for _, m := range s.all() {
		if !back[m.net.Name] {
			s.note(m.net.Name, fromLibvirt)
			continue
		}
		s.note(m.net.Name, fromLibvirt, finding.Finding{
			ID: finding.LibvirtManages,
			Summary: fmt.Sprintf("libvirt manages network %s itself and has put its own rules for bridge %s back, which stay",
				m.net.Name, m.net.Bridge),
			Remedy: "stop the network in libvirt, or remove it here",
		})
	}
}
