package service

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// withDevices returns the network with its forward devices looked up again. A
// packet has its link's own name, so a rule for an alternative one would match
// nothing.
func (v *hostView) withDevices(m *managed) *managed {
	devices, missing := v.resolve(m.net.Devices)
	next := *m
	next.devices = devices
	if len(missing) == 0 {
		return next.noting(fromDevices)
	}
	return next.noting(fromDevices, missingDevices(missing))
}

// resolve returns the links' own names of forward devices, each once, and those
// that no link has. These stay as they are written: their rules match as soon
// as a link has the name as its own, and until then nothing.
func (v *hostView) resolve(names []string) (devices, missing []string) {
	for _, name := range names {
		own, ok := v.ownName(name)
		if !ok {
			missing = append(missing, name)
		}
		if !slices.Contains(devices, own) {
			devices = append(devices, own)
		}
	}
	return devices, missing
}

// ownName returns the own name of the link that has a name of either sort. A
// name that other readers of the rules would take for several links counts as
// missing.
func (v *hostView) ownName(name string) (own string, ok bool) {
	l, ok := v.hostLinks.LinkByName(name)
	if !ok { // of a link that is down no message tells an alternative name
		var err error
		if l, ok, err = v.hostLinks.Query(name); err != nil {
			v.log.Error("looking for a forward device", "device", name, "error", err)
			v.workers.comparison.trigger()
		}
	}
	if !ok || !network.IsInterfaceName(l.Name) {
		return name, false
	}
	return l.Name, true
}

func missingDevices(names []string) finding.Finding {
	f := finding.Finding{
		ID:      finding.DeviceMissing,
		Summary: fmt.Sprintf("no interface of the host has the name %s of the network's forward device", names[0]),
		Remedy:  "guests use it as soon as it appears; `ip link` lists the interfaces, in case the network should name another",
	}
	if len(names) > 1 {
		f.Summary = fmt.Sprintf("no interfaces of the host have the names %s of the network's forward devices", strings.Join(names, ", "))
		f.Remedy = "guests use them as soon as they appear; `ip link` lists the interfaces, in case the network should name others"
	}
	return f
}

// sameDevices reports whether looking the forward devices up made no difference.
func (m *managed) sameDevices(o *managed) bool {
	return slices.Equal(m.devices, o.devices) && slices.Equal(m.noted[fromDevices], o.noted[fromDevices])
}

// byDevices returns the names of the networks that have one of the changed links
// as a forward device, or may have it now.
func (v *hostView) byDevices(changes []watch.Change) (networks []string) {
	names := map[string]bool{}
	for _, c := range changes {
		for _, l := range []watch.Link{c.Old, c.New} {
			names[l.Name] = true
			for _, name := range l.AltNames.List() {
				names[name] = true
			}
		}
	}
	changed := func(name string) bool { return names[name] }
	for _, m := range v.networks.All() {
		if slices.ContainsFunc(m.net.Devices, changed) || slices.ContainsFunc(m.devices, changed) {
			networks = append(networks, m.net.Name)
		}
	}
	return networks
}
