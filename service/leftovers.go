package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// leftoverPause is how long networks gather before what libvirt left for them
// is looked for: where there is anything of iptables, each look runs programs.
const leftoverPause = 50 * time.Millisecond

// clearLeftovers takes out what libvirt left behind for our networks, whenever
// it is poked, until the context ends.
func (s *Service) clearLeftovers(ctx context.Context) {
	cleared := map[string]bool{} // networks whose leftovers went while libvirt ran
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.foreign:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(leftoverPause):
		}
		s.withLock(ctx, func(ctx context.Context) {
			if err := s.clearOnce(ctx, cleared); err != nil && ctx.Err() == nil {
				s.Log.Warn("what libvirt left behind may still be there", "error", err)
			}
		})
	}
}

// clearOnce looks once. Where libvirt runs and has made its rules again it is
// libvirt that manages the network: the service says so and does not fight it.
func (s *Service) clearOnce(ctx context.Context, cleared map[string]bool) error {
	var nets []network.Network
	for _, m := range s.all() {
		if m.hasRules {
			nets = append(nets, m.net)
		}
	}
	maps.DeleteFunc(cleared, func(name string, _ bool) bool {
		return !slices.ContainsFunc(nets, func(n network.Network) bool { return n.Name == name })
	})
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
	if !running {
		clear(cleared)
	}
	back := map[string]bool{}
	nets = slices.DeleteFunc(nets, func(n network.Network) bool {
		back[n.Name] = present[n.Name] && cleared[n.Name]
		return !present[n.Name] || back[n.Name]
	})
	s.noteLibvirt(back)
	if len(nets) == 0 {
		return nil
	}
	report, err := s.Leftovers.Remove(ctx, nets, ours)
	if !report.Empty() {
		s.Log.Info("took out what libvirt left for networks that are governed here", "removed", report.String())
	}
	if running && err == nil {
		for _, n := range nets {
			cleared[n.Name] = true
		}
	}
	return err
}

// noteLibvirt says of networks whether libvirt manages them as well.
func (s *Service) noteLibvirt(back map[string]bool) {
	for _, m := range s.all() {
		problem := ""
		if back[m.net.Name] {
			problem = fmt.Sprintf("libvirt manages network %s itself and has put its own rules for bridge %s back, which stay: "+
				"stop the network in libvirt, or remove it here", m.net.Name, m.net.Bridge)
		}
		if problem != m.libvirt {
			next := *m
			next.libvirt = problem
			s.publish([]transition{{old: m, next: &next}})
		}
	}
}
