package rig

import (
	"context"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// AllZones are the service's zones and policies, as InstalledZones has them.
var AllZones = []string{"libvirt", "libvirt-routed", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"}

// Firewalld is the real firewalld on a rig's host: its process and its
// zones.
type Firewalld struct{ r *Rig }

// WithFirewalld makes a host with the service beside a firewalld that has these
// of the service's zones and policies.
func WithFirewalld(t testing.TB, zones ...string) *Rig {
	t.Helper()
	r := New(t)
	r.Firewalld.SetZones(zones...)
	r.Firewalld.Start("nftables")
	r.StartDaemon()
	return r
}

// Start starts firewalld with a backend, and waits until it is running.
func (f *Firewalld) Start(backend string) *host.Process {
	f.r.T.Helper()
	return f.r.Host.Firewalld(backend)
}

// Process returns the firewalld that runs.
func (f *Firewalld) Process() *host.Process {
	f.r.T.Helper()
	for _, p := range f.r.Processes() {
		if p.Name == "firewalld" && p.Running() {
			return p
		}
	}
	f.r.T.Fatal("no firewalld runs")
	return nil
}

// Signal sends a signal to the firewalld that runs.
func (f *Firewalld) Signal(sig syscall.Signal) {
	f.r.T.Helper()
	Must(f.r.T, f.Process().Signal(sig))
}

// Stop ends the firewalld that runs, if one does, with a signal.
func (f *Firewalld) Stop(sig syscall.Signal) {
	f.r.T.Helper()
	for _, p := range f.r.Processes() {
		if p.Name == "firewalld" && p.Running() {
			Must(f.r.T, p.Signal(sig))
			<-p.Done()
		}
	}
}

// Restart ends firewalld with a signal and starts it again.
func (f *Firewalld) Restart(sig syscall.Signal) {
	f.r.T.Helper()
	f.Stop(sig)
	f.Start("nftables")
}

// SetZones leaves exactly these of the service's zones and policies where firewalld
// finds them at its start, as libvirt's package has them. The machine may have that
// package.
func (f *Firewalld) SetZones(names ...string) {
	f.r.T.Helper()
	f.r.Must("sh", "-c", "rm -f /usr/lib/firewalld/zones/libvirt*.xml /usr/lib/firewalld/policies/libvirt*.xml")
	for _, name := range names {
		folder := "policies/"
		if name == "libvirt" || name == "libvirt-routed" {
			folder = "zones/"
		}
		Must(f.r.T, f.r.CopyIn(Source("zones/firewalld", folder+name+".xml"), "/usr/lib/firewalld/"+folder+name+".xml"))
	}
}

// Call calls the real firewalld, never starting it.
func (f *Firewalld) Call(method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(CallTimeout))
	defer cancel()
	return f.r.Conn.Object("org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1").
		CallWithContext(ctx, "org.fedoraproject.FirewallD1."+method, godbus.FlagNoAutoStart, args...)
}

// Move puts an interface into a zone, as firewall-cmd --change-interface does.
func (f *Firewalld) Move(iface, zone string) {
	f.r.T.Helper()
	f.r.OK(f.Call("zone.changeZoneOfInterface", zone, iface))
}

// ZoneOf returns the zone of an interface according to firewalld; "" for none.
func (f *Firewalld) ZoneOf(iface string) (zone string) {
	f.r.T.Helper()
	call := f.Call("zone.getZoneOfInterface", iface)
	if call.Err != nil && strings.Contains(call.Err.Error(), "UNKNOWN_INTERFACE") {
		return ""
	}
	f.r.OK(call, &zone)
	return zone
}

// WantZone compares the zone of a network's bridge, as firewalld and as the
// service has it.
func (f *Firewalld) WantZone(network, bridge, want string) {
	f.r.T.Helper()
	if got := f.ZoneOf(bridge); got != want {
		f.r.T.Errorf("firewalld has %s in zone %q, want %q", bridge, got, want)
	}
	if got := f.r.Property(network, "BoundZone"); got != want {
		f.r.T.Errorf("the service says that %s is in zone %q, want %q", bridge, got, want)
	}
}

// AwaitZone waits until firewalld and the service agree on a zone.
func (f *Firewalld) AwaitZone(network, bridge, want string) {
	f.r.T.Helper()
	f.r.Until(bridge+" is in zone "+want, func() bool {
		return f.ZoneOf(bridge) == want && f.r.Property(network, "BoundZone") == want
	})
}

// active returns the zones that have interfaces; none without firewalld.
func (f *Firewalld) active() (zones map[string]map[string][]string) {
	f.r.T.Helper()
	if call := f.Call("zone.getActiveZones"); call.Err == nil {
		f.r.OK(call, &zones)
	}
	return zones
}
