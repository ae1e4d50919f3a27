package service_test

import (
	"context"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// TestZonesFollowFirewalld over its reload, its stop and its start.
func TestZonesFollowFirewalld(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.wantZone("added", "virbr0", "libvirt")
		for what, shake := range map[string]func(){
			"reloaded":  r.Firewalld.Reload,
			"restarted": func() { r.Firewalld.Stop(); pass(time.Second); r.Firewalld.Start() },
		} {
			shake()
			pass(time.Second)
			r.wantZone(what, "virbr0", "libvirt")
			r.want(what, service.StateActive, "")
		}
		r.Firewalld.Stop()
		pass(time.Second)
		if h := r.Service.HostStatus(); h.FirewalldRunning {
			t.Error("a firewalld that is stopped is said to run")
		}
		r.want("without firewalld", service.StateActive, "")
		err := r.Service.UpdateNetwork(context.Background(), "default", map[string]any{"Zone": "trusted"}, service.ChangeOptions{})
		wantKind(t, "naming a zone without firewalld", err, service.FirewalldNotRunning)
	})
}

// TestZonesOfSomebodysChoice: zones chosen by hand stay until a reload of the service.
func TestZonesOfSomebodysChoice(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		r.add("nat")
		r.Firewalld.Move("virbr0", "work")
		pass(time.Second)
		r.wantZone("moved by firewall-cmd", "virbr0", "work")
		if st := r.status("default"); st.BoundZone != "work" {
			t.Errorf("BoundZone is %q", st.BoundZone)
		}
		r.Must(r.Service.Reload(ctx))
		pass(time.Second)
		r.wantZone("reloaded", "virbr0", "libvirt")
		bound, err := r.Service.BindInterface(ctx, "virbr0", "trusted", nil)
		r.Must(err)
		if bound != "trusted" {
			t.Errorf("bound to %q", bound)
		}
		r.Stop()
		r.Start()
		pass(time.Second)
		r.wantZone("started again", "virbr0", "trusted")
		r.Must(r.Service.UnbindInterface(ctx, "virbr0", nil))
		r.wantZone("unbound", "virbr0", "")
		_, err = r.Service.BindInterface(ctx, "virbr0", "nosuch", nil)
		wantKind(t, "a zone that is not there", err, service.ZoneNotFound)
		_, err = r.Service.BindInterface(ctx, "eth0", "trusted", nil)
		wantKind(t, "no network's interface", err, service.NetworkNotFound)
	})
}

// TestZonesInstalledAndRemoved also checks what networks report then.
func TestZonesInstalledAndRemoved(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Firewalld.Forget()
		r.Start()
		r.add("nat")
		r.want("without the zones", service.StateDegraded, finding.ZoneMissing)
		names, err := r.Service.InstallZones(ctx, false)
		r.Must(err)
		if len(names) != 5 {
			t.Errorf("installed %q", names)
		}
		pass(time.Second)
		r.want("with the zones", service.StateActive, "")
		_, err = r.Service.RemoveZones(ctx, zones.Removal{})
		wantKind(t, "zones in use", err, service.ZonesNotInstalled)
		_, err = r.Service.RemoveZones(ctx, zones.Removal{Unbind: true})
		r.Must(err)
		pass(time.Second)
		r.want("without them again", service.StateDegraded, finding.ZoneMissing)
		r.Firewalld.Stop()
		_, err = r.Service.InstallZones(ctx, false)
		wantKind(t, "without firewalld", err, service.FirewalldNotRunning)
	})
}

// TestSilentFirewalld: calls do not wait for it; an added network's bridge is bound
// when it answers, and a removed network keeps its rules until its bridge has left
// its zone, also over a restart.
func TestSilentFirewalld(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		r.add("isolated")
		r.Firewalld.Silence(true)
		begin := time.Now()
		r.Must(r.Add(ctx, servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"), service.ChangeOptions{}))
		r.Must(r.Service.RemoveNetwork(ctx, "default", service.ChangeOptions{}))
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("two calls took %v", took)
		}
		r.wantFinding("silent", finding.FirewalldSilent, true)
		if !r.holds(`Name:virbr0`) || r.holds("Comment:network default") {
			t.Errorf("the bridge that is in its zone still has no rules: %q", r.Kernel.Lines())
		}
		if r.Service.Pending() == nil {
			t.Error("nothing is owed")
		}
		r.Kill()
		r.Start()
		if !r.holds(`Name:virbr0`) {
			t.Errorf("started again, the bridge has no rules: %q", r.Kernel.Lines())
		}
		r.Firewalld.Silence(false)
		pass(2 * time.Minute)
		r.wantZone("answered", "virbr0", "")
		r.wantZone("answered", "virbr1", "libvirt")
		if r.holds(`Name:virbr0`) || r.Service.Pending() != nil {
			t.Errorf("the bridge has left its zone, and its rules stay: %q", r.Kernel.Lines())
		}
		r.wantFinding("answered", finding.FirewalldSilent, false)
	})
}

// TestLeavingBridgeIsGovernedAgain: rules that wait for a silent firewalld give way
// to a network's.
func TestLeavingBridgeIsGovernedAgain(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		r.add("isolated")
		r.Firewalld.Silence(true)
		pass(2 * time.Second)
		r.Must(r.Service.RemoveNetwork(ctx, "default", service.ChangeOptions{}))
		r.Must(r.Add(ctx, servicetest.NetXML("again", "virbr0", "nat", natNet), service.ChangeOptions{}))
		if !r.holds("Comment:network again") {
			t.Errorf("the network is not in force: %q", r.Kernel.Lines())
		}
		r.Firewalld.Silence(false)
		pass(2 * time.Minute)
		r.wantZone("answered", "virbr0", "libvirt")
		if st := r.status("again"); st.State != service.StateActive {
			t.Errorf("the network is %s: %s", st.State, st.StateReason)
		}
	})
}
