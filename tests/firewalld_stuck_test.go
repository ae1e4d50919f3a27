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
func TestStuckFirewalldKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce("state_code=zone-not-bound", "taking back a failed change", "asking firewalld")
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
	select {
	case <-asked.Done:
		t.Errorf("the others were kept waiting until the stuck call ended: %v", asked.Err)
	default:
	}
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
	r.wantRefusal(r.Manager("RemoveNetwork", "old", opts()), "ApplyFailed", "virbr7", "firewalld")
	if diff := cmp.Diff(before, r.files()); diff != "" {
		t.Errorf("files were changed:\n%s", diff)
	}
	r.must(r.AddXML(netXML("default", "virbr2", "nat", "10.1.2.1/24")))

	// firewalld goes on, and does first what it was asked for in the meantime.
	r.signalFirewalld(syscall.SIGCONT)
	r.awaitZone("default", "virbr2", "libvirt")
	r.AwaitState("default", "active")
	r.awaitZone("old", "virbr7", "libvirt")
	r.until("virbr0 is in no zone", func() bool { return r.zoneOf("virbr0") == "" })
	r.must(r.AddXML(inZone(netXML("asked", "virbr0", "nat", "10.1.0.1/24"), "trusted")))
	r.wantZone("asked", "virbr0", "trusted")
	r.must(r.Manager("RemoveNetwork", "old", opts()))
	if zone := r.zoneOf("virbr7"); zone != "" {
		t.Errorf("after removal virbr7 is in zone %q", zone)
	}
}

// waitingRig has a call that waits for a stuck firewalld, with its network's
// rules in force and its file written.
func waitingRig(t *testing.T) (r *rig, added *godbus.Call) {
	t.Helper()
	r = walledRig(t, allZones...)
	r.Announce("state_code=zone-not-bound", "asking firewalld")
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("old", "virbr7", "nat", "10.7.0.1/24"))) // by then the service has nothing else to ask
	r.signalFirewalld(syscall.SIGSTOP)
	added = r.begin("AddNetworkFromXML", netXML("default", "virbr0", "nat", natNet), opts("Persistent", true))
	r.until("the call waits for firewalld", func() bool { return strings.Contains(r.Table(), "net_default_from") })
	return r, added
}

// reloadsMeanwhile reloads while a call waits, and then lets it end.
func (r *rig) reloadsMeanwhile(waiting *godbus.Call) {
	r.t.Helper()
	r.must(r.Manager("Reload"))
	select {
	case <-waiting.Done:
		r.t.Fatal("the call did not wait for the reload to happen")
	default:
	}
	r.must(r.answered(waiting))
}

// TestReloadTakesOutWhatWaits: a call waits for a stuck firewalld when a reload
// takes its network out again. The call's end must not bring it back.
func TestReloadTakesOutWhatWaits(t *testing.T) {
	t.Parallel()
	r, added := waitingRig(t)
	f := r.Follow()
	r.Must("rm", networksDir+"/default.xml")
	r.reloadsMeanwhile(added)
	r.wantNames("after the call", "old")
	if table := r.Table(); strings.Contains(table, "net_default") {
		t.Errorf("the network that went left rules:\n%s", table)
	}
	for _, e := range f.all() {
		if strings.Contains(e, "default") {
			t.Errorf("told of a network that was never certain: %s", e)
		}
	}
	r.signalFirewalld(syscall.SIGCONT)
	r.until("virbr0 is in no zone", func() bool { return r.zoneOf("virbr0") == "" })
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	r.wantZone("default", "virbr0", "libvirt")
}

// TestReloadMovesWhatWaits to another bridge: the call's end says nothing of
// that one, and takes the first out of the zone that it may have entered late.
func TestReloadMovesWhatWaits(t *testing.T) {
	t.Parallel()
	r, added := waitingRig(t)
	r.write(networksDir+"/default.xml", netXML("default", "virbr1", "nat", natNet))
	r.Must("ip", "address", "flush", "dev", "virbr0") // it would be in the way
	r.reloadsMeanwhile(added)
	if bridge, zone := r.Property("default", "Bridge"), r.Property("default", "BoundZone"); bridge != "virbr1" || zone != "" {
		t.Errorf("the network has bridge %v, in zone %q", bridge, zone)
	}
	r.signalFirewalld(syscall.SIGCONT)
	r.awaitZone("default", "virbr1", "libvirt")
	r.until("virbr0 is in no zone", func() bool { return r.zoneOf("virbr0") == "" })
}

// TestBackendMovesUnderWhatWaits: all networks move to another backend while an
// update waits for a stuck firewalld. When it fails, what comes back is there.
func TestBackendMovesUnderWhatWaits(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	r.Announce("state_code=zone-not-bound", "taking back a failed change", "asking firewalld", "iptables holds libvirt's own rules")
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	r.wantZone("default", "virbr0", "libvirt")
	r.signalFirewalld(syscall.SIGSTOP)
	updated := r.bus.Object(managerName, managerPath+"/network/default").Go(networkName+".Update", 0, nil, opts("Zone", "trusted", "ForwardMode", "route"), opts())
	r.until("the call waits for firewalld", func() bool { return !strings.Contains(r.Table(), "net_default_nat") })
	r.must(r.Manager("SetBackend", "iptables", opts()))
	select {
	case <-updated.Done:
		t.Fatal("the call did not wait for the move to happen")
	default:
	}
	r.wantRefusal(r.answered(updated), "ApplyFailed", "virbr0", "did not answer")
	if backend := r.Property("default", "Backend"); backend != "iptables" {
		t.Errorf("the network says that %v holds it", backend)
	}
	if chains := r.chains(); !strings.Contains(chains, "MASQUERADE") {
		t.Errorf("what the update replaced did not come back:\n%s", chains)
	}
	r.signalFirewalld(syscall.SIGCONT)
	r.awaitZone("default", "virbr0", "libvirt")
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
	r.Announce("state_code=zone-not-bound", "asking firewalld")
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
	r.wantError(r.answered(asked), "FirewalldNotRunning")
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
	r.Announce("state_code=zone-not-bound", "asking firewalld")
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
