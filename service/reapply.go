package service

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// mendPause is how long a full comparison waits after a failure.
const mendPause = 2 * time.Second

// Reapply compares kernel and zones with what should be there and mends the
// difference. repairs counts the networks that needed it.
func (s *Service) Reapply(ctx context.Context) (repairs int, err error) {
	return s.reapply(ctx, binding.AllAnew)
}

func (s *Service) reapply(ctx context.Context, which binding.Scope) (repairs int, err error) {
	c := s.binder.TryBegin(ctx)
	defer c.End()
	mended, err := s.reapplyRules(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range c.Rebind(ctx, which) {
		mended[name] = "its bridge was not in its zone"
	}
	if c.Held() {
		s.refreshFirewalld(ctx, c)
	}
	if err := s.lock.acquire(ctx); err != nil {
		return 0, err
	}
	defer s.lock.release()
	reported := maps.Clone(mended) // what mends the rest reports it
	s.advertisements.reapply(ctx, mended)
	s.forwarding.reapply(ctx, mended)
	s.rules.afterRepair(ctx, reported)
	return len(mended), nil
}

// reapplyRules compares the rules, and returns the networks that needed a repair,
// each with the reason.
func (s *Service) reapplyRules(ctx context.Context) (map[string]string, error) {
	if err := s.lock.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.lock.release()
	mended := map[string]string{}
	var ts []transition
	for _, m := range s.networks.All() {
		if t, changed := s.changes.relinked(m.net.Name); changed {
			ts = append(ts, t)
			mended[m.net.Name] = "its bridge had changed"
			if t.old.bridge == t.next.bridge {
				mended[m.net.Name] = "its forward devices had changed"
			}
		}
	}
	s.changes.applyLinks(ctx, ts, "Reapply")
	damaged, err := s.rules.sync(ctx)
	if err != nil {
		return nil, errorf(ApplyFailed, "mending the kernel's rules: %w", err)
	}
	s.rules.inForce()
	for _, name := range s.networks.governed(damaged) {
		mended[name] = "its rules had been changed"
	}
	return mended, nil
}

// afterRepair does what follows rules that came back, and reports it.
func (rs *rules) afterRepair(ctx context.Context, mended map[string]string) {
	var nets []network.Network
	for _, m := range rs.networks.All() {
		if _, ok := mended[m.net.Name]; ok && m.translates() {
			nets = append(nets, m.net)
		}
	}
	rs.view.noteSubnets(rs.networks.All())
	rs.connections.retranslate(nets)
	rs.workers.checksums.trigger()
	rs.workers.libvirt.trigger()
	rs.workers.foreign.trigger()
	rs.workers.forwarding.trigger()
	for name, cause := range mended {
		rs.networks.repaired(name, cause)
	}
}

// members are all networks that have rules, and bridges that have yet to leave
// their zones, by name.
func (rs *rules) members() []backend.Member {
	var out []backend.Member
	for _, m := range rs.networks.All() {
		if m.hasRules {
			out = append(out, m.member())
		}
	}
	for _, m := range rs.leaving.all() {
		if m.hasRules {
			out = append(out, m.member())
		}
	}
	slices.SortFunc(out, func(a, b backend.Member) int { return strings.Compare(a.Network.Name, b.Network.Name) })
	return out
}

// compareAgain compares everything after a failure, and tries again where that
// fails.
func (s *Service) compareAgain(ctx context.Context) (again time.Time) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if _, err := s.reapply(ctx, binding.Everything); err != nil {
		s.log.complain(ctx, slog.LevelError, "mending after a failure", err)
		return time.Now()
	}
	return again
}
