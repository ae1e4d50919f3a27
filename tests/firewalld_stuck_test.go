package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// firewalldProcess is the firewalld that runs.
func (r *rig) firewalldProcess() *host.Process {
	r.t.Helper()
	for _, p := range r.Processes() {
		if p.Name == "firewalld" && p.Running() {
			return p
		}
	}
	r.t.Fatal("no firewalld runs")
	return nil
}

func (r *rig) signalFirewalld(sig syscall.Signal) {
	r.t.Helper()
	if err := r.firewalldProcess().Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// begin starts a call of the manager without waiting for its answer.
func (r *rig) begin(method string, args ...any) *godbus.Call {
	return r.bus.Object(managerName, managerPath).Go(managerName+"."+method, 0, nil, args...)
}

// answered waits for the answer to a call that begin made.
func (r *rig) answered(call *godbus.Call) *godbus.Call {
	r.t.Helper()
	select {
	case <-call.Done:
	case <-time.After(callTimeout):
		r.t.Fatalf("%s is not answered", call.Method)
	}
	return call
}

func inZone(xml, zone string) string {
	return strings.Replace(xml, "<bridge ", "<bridge zone='"+zone+"' ", 1)
}

// TestStuckFirewalldKeepsNobodyWaiting stops the real firewalld in the middle
// of its work. Who asks for a zone by name waits in vain, and nobody else.
// Whatever was asked of it meanwhile is right once it goes on.
func TestStuckFirewalldKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce(silenceAnnounced...)
	r.must(r.AddXML(netXML("old", "virbr7", "nat", "10.7.0.1/24")))
	r.wantZone("old", "virbr7", "libvirt")
	for i := range 3 {
		r.Bridge(fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.1.%d.1/24", i))
	}
	r.signalFirewalld(syscall.SIGSTOP)
	before := r.files()
	asked := r.begin("AddNetworkFromXML", inZone(netXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted"), opts("Persistent", true))
	r.until("the call waits for firewalld", func() bool { return strings.Contains(r.Table(), "net_asked_from") })

	// Others, who have to do with firewalld or not.
	r.must(r.AddXML(netXML("open", "virbr1", "open", "10.1.1.1/24")))
	r.must(r.Network("open", "Update", opts("TFTP", true), opts()))
	r.must(r.Network("old", "GetRuleset"))
	r.must(r.Manager("Preview", netXML("other", "virbr3", "nat", "10.1.3.1/24"), ""))
	r.must(r.Manager("RemoveNetwork", "open", opts()))
	r.must(r.AddXML(netXML("default", "virbr2", "nat", "10.1.2.1/24")))
	r.must(r.Manager("Reload"))
	r.must(r.Manager("Reapply"))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "virbr2") || !strings.Contains(reason, "systemctl status firewalld") {
		t.Errorf("a network without its zone is %s: %s", state, reason)
	}
	if !strings.Contains(r.Table(), "net_default_from") {
		t.Error("a network without its zone has no rules")
	}

	// What asked for the zone fails, and nothing is left of it.
	r.wantRefusal(r.answered(asked), "ApplyFailed", "virbr0", "did not answer")
	r.wantNames("after the failed call", "default", "old")
	if table := r.Table(); strings.Contains(table, "net_asked") {
		t.Errorf("the failed call left rules:\n%s", table)
	}
	r.must(r.Manager("RemoveNetwork", "default", opts())) // it is in no zone, so there is nothing to wait for
	if diff := cmp.Diff(before, r.files()); diff != "" {
		t.Errorf("files were changed:\n%s", diff)
	}
	r.must(r.Manager("RemoveNetwork", "old", opts()))
	r.wantNames("after the removal")
	r.must(r.AddXML(netXML("default", "virbr2", "nat", "10.1.2.1/24")))

	// firewalld goes on, and does first what it was asked for in the meantime.
	r.signalFirewalld(syscall.SIGCONT)
	r.awaitZone("default", "virbr2", "libvirt")
	r.AwaitState("default", "active")
	for _, bridge := range []string{"virbr0", "virbr7"} {
		r.until(bridge+" is in no zone", func() bool { return r.zoneOf(bridge) == "" })
	}
	r.settled()
	r.must(r.AddXML(inZone(netXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted")))
	r.wantZone("asked", "virbr0", "trusted")
}

// waitingRig has a call that waits for a stuck firewalld, with its network's
// rules in force and its file written.
func waitingRig(t *testing.T) (r *rig, added *godbus.Call) {
	t.Helper()
	r = walledRig(t, allZones...)
	r.Announce(silenceAnnounced...)
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("old", "virbr7", "nat", "10.7.0.1/24"))) // by then the service has nothing else to ask
	r.signalFirewalld(syscall.SIGSTOP)
	added = r.begin("AddNetworkFromXML", netXML("default", "virbr0", "nat", natNet), opts("Persistent", true))
	r.until("the call waits for firewalld", func() bool { return strings.Contains(r.Table(), "net_default_from") })
	return r, added
}

// files are those of the networks, persistent and not, with their contents.
func (r *rig) files() string {
	r.t.Helper()
	return r.Must("sh", "-c", "cd / && find etc/virtfirewalld run/virtfirewalld -name '*.xml' -exec grep -H . {} + 2>/dev/null | sort")
}

// TestFirewalldDiesInACall ends it while calls wait for its answers.
func TestFirewalldDiesInACall(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce(silenceAnnounced...)
	for i := range 2 {
		r.Bridge(fmt.Sprintf("virbr%d", i), fmt.Sprintf("10.1.%d.1/24", i))
	}
	r.must(r.AddXML(netXML("old", "virbr7", "nat", "10.7.0.1/24")))
	r.signalFirewalld(syscall.SIGSTOP)
	asked := r.begin("AddNetworkFromXML", inZone(netXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted"), opts())
	r.until("the call waits for firewalld", func() bool { return strings.Contains(r.Table(), "net_asked_from") })
	plain := r.begin("AddNetworkFromXML", netXML("default", "virbr1", "nat", "10.1.1.1/24"), opts())
	gone := r.begin("RemoveNetwork", "old", opts())
	r.stopFirewalld(syscall.SIGKILL)
	if r.answered(asked); !strings.Contains(message(asked), "did not answer") { // as it was given up on a busy machine
		r.wantError(asked, "FirewalldNotRunning")
	}
	r.must(r.answered(plain))
	r.must(r.answered(gone))
	r.wantNames("after firewalld's death", "default")
	r.AwaitState("default", "active") // a host without firewalld needs no zone
	r.Firewalld("nftables")
	r.awaitZone("default", "virbr1", "libvirt")
	for _, iface := range []string{"virbr0", "virbr7"} {
		if zone := r.zoneOf(iface); zone != "" {
			t.Errorf("%s is in zone %q", iface, zone)
		}
	}
}

// TestFirewalldAnswersErrors has the real firewalld fail: it is in panic mode,
// or its own table is gone. The networks say so and are tried again.
func TestFirewalldAnswersErrors(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce("state_code=zone-not-bound")
	r.Bridge("virbr0", natNet)
	r.must(r.firewalldCall("enablePanicMode"))
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	state, reason := r.State("default")
	if state != "degraded" || !strings.Contains(reason, "firewalld answered") || !strings.Contains(reason, "PANIC") {
		t.Errorf("while firewalld panics the network is %s: %s", state, reason)
	}
	call := r.AddXML(inZone(netXML("asked", "virbr1", "nat", "10.1.0.1/24"), "trusted"))
	r.wantRefusal(call, "ApplyFailed", "virbr1", "PANIC")
	r.wantNames("in panic mode", "default")
	f := r.Follow()
	r.must(r.firewalldCall("disablePanicMode")) // which no signal of zones tells of
	f.until("State=active")
	r.wantZone("default", "virbr0", "libvirt")
}

// TestZonesInstalledWhileOthersWork: firewalld's reload, which InstallZones
// waits for, keeps nobody waiting, and no connection breaks.
func TestZonesInstalledWhileOthersWork(t *testing.T) {
	t.Parallel()
	r := walledRig(t)
	r.Announce("state_code=zone-", "state_code=firewalld-unresponsive", "asking firewalld")
	internet := r.Internet()
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(inZone(netXML("default", "virbr0", "nat", natNet), "trusted")))
	guest := r.Guest("virbr0", "guest", "192.168.122.10/24")
	k := newTalk(t, guest, internet, "203.0.113.1:7000")
	r.signalFirewalld(syscall.SIGSTOP)
	install := r.begin("InstallZones", opts())
	for i := range 3 {
		r.must(r.AddXML(netXML("open", "virbr1", "open", fmt.Sprintf("10.1.%d.1/24", i))))
		r.must(r.Manager("RemoveNetwork", "open", opts()))
	}
	select {
	case <-install.Done:
		t.Errorf("the others waited for the installation: %v", install.Err)
	default:
	}
	r.signalFirewalld(syscall.SIGCONT)
	r.must(r.answered(install))
	r.wantZone("default", "virbr0", "trusted")
	k.works(t, "after the zones were installed")
	r.must(r.Manager("RemoveZones", opts()))
	r.wantZone("default", "virbr0", "trusted")
	k.works(t, "after the zones were removed")
}

// TestMovedByHandStays: what somebody chose with firewall-cmd is respected and
// told until the next Reapply or reload, whatever else changes.
func TestMovedByHandStays(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	for name, end := range map[string]func(){
		"Reapply":            func() { r.must(r.Manager("Reapply")) },
		"Reload":             func() { r.must(r.Manager("Reload")) },
		"firewalld's reload": func() { r.Must("firewall-cmd", "--reload") },
		"another mode": func() {
			r.must(r.Network("default", "Update", opts("ForwardMode", "isolated"), opts()))
		},
	} {
		f := r.Follow()
		r.Must("firewall-cmd", "--zone=work", "--change-interface=virbr0")
		f.until("BoundZone=work")
		r.must(r.Network("default", "Update", opts("TFTP", name == "Reapply" || name == "Reload"), opts()))
		r.must(r.AddXML(netXML("other", "virbr1", "nat", "10.9.0.1/24")))
		r.must(r.Manager("RemoveNetwork", "other", opts()))
		r.wantZone("default", "virbr0", "work")
		if state, reason := r.State("default"); state != "active" {
			t.Errorf("moved by hand the network is %s: %s", state, reason)
		}
		r.Must("firewall-cmd", "--zone=work", "--remove-interface=virbr0")
		f.until("BoundZone=")
		r.wantZone("default", "virbr0", "")
		end()
		r.awaitZone("default", "virbr0", "libvirt")
	}
}
