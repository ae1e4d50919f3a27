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

// forwarder has the host forward what networks need.
type forwarder struct {
	host     HostNeeds
	networks *networks
	lock     *changeLock
	log      logger
	fights   fights // over settings; whoever holds the change lock
}

// demand returns what the network needs the host to forward; ok is false for
// nothing, which is so until its bridge is there.
func (fw *forwarder) demand(m *managed) (d host.Demand, ok bool) {
	v4, v6 := m.forwards()
	d = host.Demand{V4: v4, V6: v6, Bridge: m.iface(), Devices: m.net.Devices,
		Guests: func(index int) bool { return len(fw.networks.ByIndex(index)) > 0 }}
	return d, m.present() && (v4 || v6)
}

// switchOn turns on what the network needs, once its bridge is there. It
// returns the settings that it turned on, and why it could not turn on others;
// nothing where all is well.
func (fw *forwarder) switchOn(ctx context.Context, m *managed) (on []string, fs []finding.Finding) {
	d, ok := fw.demand(m)
	if !ok {
		return nil, nil
	}
	f := finding.Finding{ID: finding.ForwardingOff}
	on, problem, err := fw.host.Forward(ctx, d)
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

// again tries once more for a network that is in force already.
func (fw *forwarder) again(ctx context.Context, m *managed) (on []string) {
	on, fs := fw.switchOn(ctx, m)
	fw.networks.note(m.net.Name, fromForwarding, fs...)
	return on
}

// isDevice reports whether a network's traffic may leave by an interface alone.
func (v *hostView) isDevice(name string) bool {
	for _, m := range v.networks.All() {
		if slices.Contains(m.net.Devices, name) {
			return true
		}
	}
	return false
}

// round switches forwarding on again after another program switched it off: the
// host's, a bridge's or an uplink's.
func (fw *forwarder) round(ctx context.Context) (again time.Time) {
	fw.lock.during(ctx, func(ctx context.Context) { again = fw.mend(ctx) })
	return again
}

// mend is one look at forwarding. next is when to look again in a fight over it;
// the zero time for never. The caller holds the lock.
func (fw *forwarder) mend(ctx context.Context) (next time.Time) {
	off := fw.off(ctx)
	settings := slices.Sorted(maps.Keys(off))
	if ended := fw.fights.end(time.Now(), settings); len(ended) > 0 {
		fw.log.Info("nobody switches forwarding off any more", "settings", ended)
	}
	defer fw.noteFights()
	if due := fw.fights.due(settings); len(settings) > 0 && time.Now().Before(due) {
		return due
	}
	if len(settings) > 0 {
		_, on := fw.putBack(ctx, off)
		fw.fights.repaired(time.Now(), opponent{}, on...)
	}
	next, _ = fw.fights.next()
	return next
}

// off returns the settings that networks in force need on and that
// another program has switched off, each with those networks. What could not be on
// in the first place is left out.
func (fw *forwarder) off(ctx context.Context) map[string][]*managed {
	off := map[string][]*managed{}
	for _, m := range fw.networks.All() {
		d, ok := fw.demand(m)
		if !ok || fw.networks.Uncertain(m.net.Name) || len(m.noted[fromForwarding]) > 0 {
			continue
		}
		settings, err := fw.host.ForwardingOff(d)
		if err != nil {
			fw.again(ctx, m) // it notes why
			continue
		}
		for _, setting := range settings {
			off[setting] = append(off[setting], m)
		}
	}
	return off
}

// putBack switches on what networks need, and reports each setting
// once. It returns the networks that needed it, each with the reason, and the
// settings.
func (fw *forwarder) putBack(ctx context.Context, off map[string][]*managed) (mended map[string]string, on []string) {
	mended = map[string]string{}
	for _, needy := range off {
		for _, m := range needy {
			on = append(on, fw.again(ctx, m)...)
		}
	}
	for setting, needy := range off {
		cause := host.SysctlName(setting) + " had been switched off"
		for _, m := range needy {
			if now, err := fw.networks.known(m.net.Name); err == nil && len(now.noted[fromForwarding]) == 0 {
				mended[m.net.Name] = cause
			}
		}
		if slices.Contains(on, setting) {
			fw.repaired(needy, setting, cause)
		}
	}
	return mended, on
}

// repaired reports one setting: a bridge's own is its network's, any
// other the host's.
func (fw *forwarder) repaired(needy []*managed, setting, cause string) {
	for _, m := range needy {
		if strings.HasSuffix(setting, "/"+m.iface()+"/forwarding") {
			fw.networks.repaired(m.net.Name, cause)
			return
		}
	}
	fw.log.Info("repaired the host's forwarding", "cause", cause, "networks", len(needy), systemd.MessageID(systemd.MessageRepaired))
	fw.networks.notify(Repaired{Cause: cause})
}

// noteFights has the State of networks say that another program keeps switching off
// what they need.
func (fw *forwarder) noteFights() {
	for _, m := range fw.networks.All() {
		var fs []finding.Finding
		if d, ok := fw.demand(m); ok && len(fw.fights) > 0 {
			fs = fightFindings(fw.fights, fw.host.ForwardingNeeded(d))
		}
		if len(fs) > 0 || len(m.noted[fromForwardingFight]) > 0 {
			fw.networks.note(m.net.Name, fromForwardingFight, fs...)
		}
	}
}

// fightFindings are those of a network that needs some settings.
func fightFindings(all fights, needed []string) []finding.Finding {
	var fought []string
	for _, setting := range needed {
		if all[setting].on() {
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

// reapply is a full comparison's part of it. Where forwarding could not
// be switched on it may be possible now.
func (fw *forwarder) reapply(ctx context.Context, mended map[string]string) {
	for _, m := range fw.networks.All() {
		if len(m.noted[fromForwarding]) > 0 {
			fw.again(ctx, m)
		}
	}
	put, _ := fw.putBack(ctx, fw.off(ctx))
	for name, cause := range put {
		if _, is := mended[name]; !is {
			mended[name] = cause
		}
	}
}
