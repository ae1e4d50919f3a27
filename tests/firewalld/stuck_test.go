package firewalld

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// begin starts a call of the manager without waiting for its answer.
func begin(r *rig.Rig, method string, args ...any) *godbus.Call {
	return r.Conn.Object(rig.ManagerName, rig.ManagerPath).Go(rig.ManagerName+"."+method, 0, nil, args...)
}

// answered waits for the answer to a call that begin made.
func answered(r *rig.Rig, call *godbus.Call) *godbus.Call {
	r.T.Helper()
	select {
	case <-call.Done:
	case <-time.After(rig.CallTimeout):
		r.T.Fatalf("%s is not answered", call.Method)
	}
	return call
}

func inZone(xml, zone string) string {
	return strings.Replace(xml, "<bridge ", "<bridge zone='"+zone+"' ", 1)
}

// TestStuckFirewalldKeepsNobodyWaiting stops the real firewalld in the middle of
// its work. Only a call that names a zone waits, in vain. What was requested
// meanwhile is right once firewalld continues.
func TestStuckFirewalldKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Announce(silenceAnnounced...)
	r.OK(r.AddXML(rig.NetXML("old", "virbr7", "nat", "10.7.0.1/24")))
	r.Firewalld.WantZone("old", "virbr7", "libvirt")
	for i := range 3 {
		r.Bridge(fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.1.%d.1/24", i))
	}
	r.Firewalld.Signal(syscall.SIGSTOP)
	before := files(r)
	asked := begin(r, "AddNetworkFromXML", inZone(rig.NetXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted"), rig.Opts("Persistent", true))
	r.Until("the call waits for firewalld", func() bool { return rig.InTable(r.Table(), "asked") })

	// Others, who have to do with firewalld or not.
	r.OK(r.AddXML(rig.NetXML("open", "virbr1", "open", "10.1.1.1/24")))
	r.OK(r.Network("open", "Update", rig.Opts("TFTP", true), rig.Opts()))
	r.OK(r.Network("old", "GetRuleset"))
	r.OK(r.Manager("Preview", rig.NetXML("other", "virbr3", "nat", "10.1.3.1/24"), ""))
	r.OK(r.Manager("RemoveNetwork", "open", rig.Opts()))
	r.OK(r.AddXML(rig.NetXML("default", "virbr2", "nat", "10.1.2.1/24")))
	r.OK(r.Manager("Reload"))
	r.OK(r.Manager("Reapply"))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "virbr2") || !strings.Contains(reason, "systemctl status firewalld") {
		t.Errorf("a network without its zone is %s: %s", state, reason)
	}
	if !rig.InTable(r.Table(), "default") {
		t.Error("a network without its zone has no rules")
	}

	// What asked for the zone fails, and nothing is left of it.
	r.WantRefusal(answered(r, asked), "ApplyFailed", "virbr0", "did not answer")
	r.WantNames("after the failed call", "default", "old")
	if table := r.Table(); strings.Contains(table, "net_asked") {
		t.Errorf("the failed call left rules:\n%s", table)
	}
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts())) // it is in no zone, so there is nothing to wait for
	if diff := cmp.Diff(before, files(r)); diff != "" {
		t.Errorf("files were changed:\n%s", diff)
	}
	r.OK(r.Manager("RemoveNetwork", "old", rig.Opts()))
	r.WantNames("after the removal")
	r.OK(r.AddXML(rig.NetXML("default", "virbr2", "nat", "10.1.2.1/24")))

	// firewalld goes on, and does first what it was asked for in the meantime.
	r.Firewalld.Signal(syscall.SIGCONT)
	r.Firewalld.AwaitZone("default", "virbr2", "libvirt")
	r.AwaitState("default", "active")
	for _, bridge := range []string{"virbr0", "virbr7"} {
		r.Until(bridge+" is in no zone", func() bool { return r.Firewalld.ZoneOf(bridge) == "" })
	}
	settled(r)
	r.OK(r.AddXML(inZone(rig.NetXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted")))
	r.Firewalld.WantZone("asked", "virbr0", "trusted")
}

// waitingRig has a call that waits for a stuck firewalld, with its network's
// rules in force and its file written.
func waitingRig(t *testing.T) (r *rig.Rig, added *godbus.Call) {
	t.Helper()
	r = rig.WithFirewalld(t, rig.AllZones...)
	r.Announce(silenceAnnounced...)
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("old", "virbr7", "nat", "10.7.0.1/24"))) // by then the service has nothing else to ask
	r.Firewalld.Signal(syscall.SIGSTOP)
	added = begin(r, "AddNetworkFromXML", rig.NetXML("default", "virbr0", "nat", rig.NatNet), rig.Opts("Persistent", true))
	r.Until("the call waits for firewalld", func() bool { return rig.InTable(r.Table(), "default") })
	return r, added
}

// files returns the networks' files, persistent and not, with their contents.
func files(r *rig.Rig) string {
	r.T.Helper()
	return r.Must("sh", "-c", "cd / && find etc/virtfirewalld run/virtfirewalld -name '*.xml' -exec grep -H . {} + 2>/dev/null | sort")
}

// TestFirewalldDiesInACall ends it while calls wait for its answers.
func TestFirewalldDiesInACall(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Announce(silenceAnnounced...)
	for i := range 2 {
		r.Bridge(fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.1.%d.1/24", i))
	}
	r.OK(r.AddXML(rig.NetXML("old", "virbr7", "nat", "10.7.0.1/24")))
	r.Firewalld.Signal(syscall.SIGSTOP)
	asked := begin(r, "AddNetworkFromXML", inZone(rig.NetXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted"), rig.Opts())
	r.Until("the call waits for firewalld", func() bool { return rig.InTable(r.Table(), "asked") })
	plain := begin(r, "AddNetworkFromXML", rig.NetXML("default", "virbr1", "nat", "10.1.1.1/24"), rig.Opts())
	gone := begin(r, "RemoveNetwork", "old", rig.Opts())
	r.Firewalld.Stop(syscall.SIGKILL)
	if answered(r, asked); !strings.Contains(rig.Message(asked), "did not answer") { // as it was given up on a busy machine
		r.WantError(asked, "FirewalldNotRunning")
	}
	r.OK(answered(r, plain))
	r.OK(answered(r, gone))
	r.WantNames("after firewalld's death", "default")
	r.AwaitState("default", "active") // a host without firewalld needs no zone
	r.Firewalld.Start("nftables")
	r.Firewalld.AwaitZone("default", "virbr1", "libvirt")
	for _, iface := range []string{"virbr0", "virbr7"} {
		if zone := r.Firewalld.ZoneOf(iface); zone != "" {
			t.Errorf("%s is in zone %q", iface, zone)
		}
	}
}

// TestFirewalldAnswersErrors has the real firewalld fail: it is in panic mode,
// or its own table is gone. The networks say so and are tried again.
func TestFirewalldAnswersErrors(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Announce("state_code=zone-not-bound")
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.Firewalld.Call("enablePanicMode"))
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "firewalld answered") || !strings.Contains(reason, "PANIC") {
		t.Errorf("while firewalld panics the network is %s: %s", state, reason)
	}
	call := r.AddXML(inZone(rig.NetXML("asked", "virbr1", "nat", "10.1.0.1/24"), "trusted"))
	r.WantRefusal(call, "ApplyFailed", "virbr1", "PANIC")
	r.WantNames("in panic mode", "default")
	f := r.Follow()
	r.OK(r.Firewalld.Call("disablePanicMode")) // which no signal of zones tells of
	f.Until("State=active")
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
}

// TestZonesInstalledWhileOthersWork: no other call waits for firewalld's reload,
// as InstallZones does, and no connection breaks.
func TestZonesInstalledWhileOthersWork(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t)
	r.Announce("state_code=zone-", "state_code=firewalld-unresponsive", "asking firewalld")
	internet := r.Internet()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(inZone(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "trusted")))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	conn := rig.Connect(t, guest, internet, "203.0.113.1:7000")
	r.Firewalld.Signal(syscall.SIGSTOP)
	install := begin(r, "InstallZones", rig.Opts())
	for i := range 3 {
		r.OK(r.AddXML(rig.NetXML("open", "virbr1", "open", fmt.Sprintf("10.1.%d.1/24", i))))
		r.OK(r.Manager("RemoveNetwork", "open", rig.Opts()))
	}
	select {
	case <-install.Done:
		t.Errorf("the others waited for the installation: %v", install.Err)
	default:
	}
	r.Firewalld.Signal(syscall.SIGCONT)
	r.OK(answered(r, install))
	r.Firewalld.WantZone("default", "virbr0", "trusted")
	conn.Works(t, "after the zones were installed")
	r.OK(r.Manager("RemoveZones", rig.Opts()))
	r.Firewalld.WantZone("default", "virbr0", "trusted")
	conn.Works(t, "after the zones were removed")
}

// TestMovedByHandStays: a zone chosen with firewall-cmd is respected and reported
// until the next Reapply or reload, whatever else changes.
func TestMovedByHandStays(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	for name, end := range map[string]func(){
		"Reapply":            func() { r.OK(r.Manager("Reapply")) },
		"Reload":             func() { r.OK(r.Manager("Reload")) },
		"firewalld's reload": func() { r.Must("firewall-cmd", "--reload") },
		"another mode": func() {
			r.OK(r.Network("default", "Update", rig.Opts("ForwardMode", "isolated"), rig.Opts()))
		},
	} {
		f := r.Follow()
		r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
		f.Until("BoundZone=work")
		r.OK(r.Network("default", "Update", rig.Opts("TFTP", name == "Reapply" || name == "Reload"), rig.Opts()))
		r.OK(r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.9.0.1/24")))
		r.OK(r.Manager("RemoveNetwork", "other", rig.Opts()))
		r.Firewalld.WantZone("default", "virbr0", "work")
		if state, reason := r.State("default"); state != "active" {
			t.Errorf("moved by hand the network is %s: %s", state, reason)
		}
		r.Must("firewall-cmd", "--zone=work", "--remove-interface=virbr0")
		f.Until("BoundZone=")
		r.Firewalld.WantZone("default", "virbr0", "")
		end()
		r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	}
}
