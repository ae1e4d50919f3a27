package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// governed returns the interface index of the bridge that the network governs; 0
// while there is none.
func (m *managed) governed() int {
	if m == nil {
		return 0
	}
	return m.bridge.index
}

// demand returns what the network needs the host to forward; ok is false for
// nothing, which is so until its bridge is there.
func (s *Service) demand(m *managed) (d host.Demand, ok bool) {
	v4, v6 := m.forwards()
	d = host.Demand{V4: v4, V6: v6, Bridge: m.iface(), Devices: m.net.Devices,
		Guests: func(index int) bool { return len(s.registry.ByIndex(index)) > 0 }}
	return d, m.present() && (v4 || v6)
}

// forwarding turns on what the network needs, once its bridge is there. It
// returns the settings that it turned on, and why it could not turn on others;
// nothing where all is well.
func (s *Service) forwarding(ctx context.Context, m *managed) (on []string, fs []finding.Finding) {
	d, ok := s.demand(m)
	if !ok {
		return nil, nil
	}
	f := finding.Finding{ID: finding.ForwardingOff}
	on, problem, err := s.Host.Forward(ctx, d)
	switch {
	case err != nil:
		f.Summary = fmt.Sprintf("switching forwarding on: %v", err)
		f.Remedy = "set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1 as needed, then reapply"
	case problem != "":
		f.Summary = problem
	default:
		return on, nil
	}
	return on, []finding.Finding{f}
}

// forwardAgain tries anew for a network that is in force already.
func (s *Service) forwardAgain(ctx context.Context, m *managed) (on []string) {
	on, fs := s.forwarding(ctx, m)
	s.note(m.net.Name, fromForwarding, fs...)
	return on
}

// isDevice reports whether a network's traffic may leave by an interface alone.
func (s *Service) isDevice(name string) bool {
	for _, m := range s.registry.All() {
		if slices.Contains(m.net.Devices, name) {
			return true
		}
	}
	return false
}

// forwardingWorker puts forwarding back that somebody switches off: the host's,
// a bridge's or an uplink's.
func (s *Service) forwardingWorker() *worker {
	quarrels := fights{}
	return &worker{signal: newSignal(), work: func(ctx context.Context) (next time.Time) {
		s.withLock(ctx, func(ctx context.Context) { next = s.mendForwarding(ctx, quarrels) })
		return next
	}}
}

// mendForwarding is one look at forwarding. next is when to look again in a
// fight over it; the zero time for never. The caller holds the lock.
func (s *Service) mendForwarding(ctx context.Context, quarrels fights) (next time.Time) {
	off := s.forwardingOff(ctx)
	settings := slices.Sorted(maps.Keys(off))
	if ended := quarrels.end(time.Now(), settings); len(ended) > 0 {
		s.Log.Info("nobody switches forwarding off any more", "settings", ended)
	}
	defer func() { s.noteQuarrels(quarrels) }()
	if due := quarrels.due(settings); len(settings) > 0 && time.Now().Before(due) {
		return due
	}
	if len(settings) > 0 {
		_, on := s.putForwardingBack(ctx, off)
		quarrels.repaired(time.Now(), opponent{}, on...)
	}
	next, _ = quarrels.next()
	return next
}

// forwardingOff returns the settings that networks in force need on and that
// somebody has switched off, each with those networks. What could not be on in
// the first place is no news.
func (s *Service) forwardingOff(ctx context.Context) map[string][]*managed {
	off := map[string][]*managed{}
	for _, m := range s.registry.All() {
		d, ok := s.demand(m)
		if !ok || s.registry.Uncertain(m.net.Name) || len(m.noted[fromForwarding]) > 0 {
			continue
		}
		settings, err := s.Host.ForwardingOff(d)
		if err != nil {
			s.forwardAgain(ctx, m) // it notes why
			continue
		}
		for _, setting := range settings {
			off[setting] = append(off[setting], m)
		}
	}
	return off
}

// putForwardingBack switches on what networks need, and tells of each setting
// once. It returns the networks that needed it, each with the reason, and the
// settings.
func (s *Service) putForwardingBack(ctx context.Context, off map[string][]*managed) (mended map[string]string, on []string) {
	mended = map[string]string{}
	for _, needy := range off {
		for _, m := range needy {
			on = append(on, s.forwardAgain(ctx, m)...)
		}
	}
	for setting, needy := range off {
		cause := host.SysctlName(setting) + " had been switched off"
		for _, m := range needy {
			if now, err := s.known(m.net.Name); err == nil && len(now.noted[fromForwarding]) == 0 {
				mended[m.net.Name] = cause
			}
		}
		if slices.Contains(on, setting) {
			s.forwardingRepaired(needy, setting, cause)
		}
	}
	return mended, on
}

// forwardingRepaired tells of one setting: a bridge's own is its network's, any
// other the host's.
func (s *Service) forwardingRepaired(needy []*managed, setting, cause string) {
	for _, m := range needy {
		if strings.HasSuffix(setting, "/"+m.iface()+"/forwarding") {
			s.repaired(m.net.Name, cause)
			s.Notify(Repaired{Name: m.net.Name, Cause: cause})
			return
		}
	}
	s.Log.Info("repaired the host's forwarding", "cause", cause, "networks", len(needy), systemd.MessageID(systemd.MessageRepaired))
	s.Notify(Repaired{Cause: cause})
}

// noteQuarrels has the State of networks say that somebody keeps switching off
// what they need.
func (s *Service) noteQuarrels(quarrels fights) {
	for _, m := range s.registry.All() {
		var fs []finding.Finding
		if d, ok := s.demand(m); ok && len(quarrels) > 0 {
			fs = quarrel(quarrels, s.Host.ForwardingNeeded(d))
		}
		if len(fs) > 0 || len(m.noted[fromForwardingFight]) > 0 {
			s.note(m.net.Name, fromForwardingFight, fs...)
		}
	}
}

// quarrel is the finding of a network that needs some settings.
func quarrel(quarrels fights, needed []string) []finding.Finding {
	var fought []string
	for _, setting := range needed {
		if quarrels[setting].on() {
			fought = append(fought, host.SysctlName(setting))
		}
	}
	if len(fought) == 0 {
		return nil
	}
	settings := strings.Join(fought, " and ")
	return []finding.Finding{{ID: finding.ForwardingOff,
		Summary: "another program keeps switching " + settings + " off, which the network needs on",
		Remedy: "have it leave " + settings + " at 1 (systemd-networkd: IPForward=, IPv4Forwarding= or IPv6Forwarding= of the .network file; " +
			"else look for it with `grep -rs forward /etc/sysctl.d /etc/sysctl.conf /etc/cron*`), then reapply"}}
}

// reapplyForwarding is a full comparison's part of it. Where forwarding could not
// be switched on it may be possible now.
func (s *Service) reapplyForwarding(ctx context.Context, mended map[string]string) {
	for _, m := range s.registry.All() {
		if len(m.noted[fromForwarding]) > 0 {
			s.forwardAgain(ctx, m)
		}
	}
	put, _ := s.putForwardingBack(ctx, s.forwardingOff(ctx))
	for name, cause := range put {
		if _, is := mended[name]; !is {
			mended[name] = cause
		}
	}
}
