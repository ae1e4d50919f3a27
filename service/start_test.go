package service_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

func nameGuests(l *watch.Link) { l.AltNames = watch.NewAltNames("guests") }

// TestBrokenFileKeepsTheNetwork in force by its last good definition; a file that
// never was in force is left out and reported.
func TestBrokenFileKeepsTheNetwork(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "nat", natNet))
		r.Start()
		r.Write("default.xml", "<network>")
		wantKind(t, "reload of a broken file", r.Service.Reload(ctx), service.InvalidArgument)
		r.want("broken, not reloaded", service.StateDegraded, finding.FileUnusable)
		r.Stop()
		r.Write("new.xml", "<network>")
		r.Start()
		pass(moment)
		r.want("broken", service.StateDegraded, finding.FileUnusable)
		r.wantFinding("broken", finding.FileNeverUsable, true)
		if !r.holds("Comment:network default") {
			t.Error("the rules are gone")
		}
		wantKind(t, "reload", r.Service.Reload(ctx), service.InvalidArgument)
		r.Must(os.Remove(r.Path("etc/networks/new.xml")))
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "isolated", natNet))
		r.Must(r.Service.Reload(ctx))
		r.want("mended", service.StateActive, "")
		if st := r.status("default"); st.Network.Mode != "isolated" {
			t.Errorf("the network is %s", st.Network.Mode)
		}
	})
}

// TestFilesThatContradict each other: a reload is refused, a start keeps what was
// in force.
func TestFilesThatContradict(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "nat", natNet))
		r.Write("other.xml", servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"))
		r.Start()
		r.Write("other.xml", servicetest.NetXML("other", "virbr0", "nat", "10.9.0.1/24"))
		wantKind(t, "one bridge for two", r.Service.Reload(ctx), service.BridgeInUse)
		r.Write("other.xml", servicetest.NetXML("other", "virbr1", "nat", "192.168.0.1/16"))
		wantKind(t, "one subnet for two", r.Service.Reload(ctx), service.SubnetOverlap)
		r.Stop()
		r.Start()
		if st := r.status("other"); st.Network.Bridge != "virbr1" || st.StateCode != finding.FileUnusable {
			t.Errorf("the other network has bridge %s, %s", st.Network.Bridge, st.StateCode)
		}
	})
}

// TestUnusableConfiguration: a start uses the last good one, a reload is refused.
func TestUnusableConfiguration(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Write("etc/virtfirewalld.conf", "firewall_backend = \"iptables\"\n")
		r.Start()
		r.add("nat")
		r.Stop()
		r.Write("etc/virtfirewalld.conf", "firewall_backend = \"pf\"\n")
		r.Start()
		r.wantFinding("unusable", finding.ConfigurationUnusable, true)
		if h := r.Service.HostStatus(); h.Backend != choice.IPTables {
			t.Errorf("the backend is %s", h.Backend)
		}
		wantKind(t, "reload", r.Service.Reload(ctx), service.InvalidArgument)
		r.Write("etc/virtfirewalld.conf", "firewall_backend = \"nftables\"\n")
		r.Must(r.Service.Reload(ctx))
		r.wantFinding("mended", finding.ConfigurationUnusable, false)
		if h := r.Service.HostStatus(); h.Backend != choice.NFTables || len(r.World.Chains.Lines()) > 0 {
			t.Errorf("the backend is %s, and iptables holds %v", h.Backend, r.World.Chains.Lines())
		}
	})
}

// TestBackendThatDoesNotWork is never replaced silently.
func TestBackendThatDoesNotWork(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Lacks.IPTables = servicetest.ErrInjected
		r.Write("etc/virtfirewalld.conf", "firewall_backend = \"iptables\"\n")
		wantKind(t, "start", r.TryStart(), service.BackendUnavailable)
		r.Service = nil
		r.Write("etc/virtfirewalld.conf", "")
		r.Start()
		err := r.Service.SetBackend(context.Background(), choice.IPTables, service.ChangeOptions{})
		wantKind(t, "SetBackend", err, service.BackendUnavailable)
		if h := r.Service.HostStatus(); len(h.AvailableBackends) != 1 || h.AvailableBackends[0] != choice.NFTables {
			t.Errorf("available are %q", h.AvailableBackends)
		}
	})
}

// TestStartBesideAnotherOwner of the table: the service runs, reports why its
// networks are not in force, and puts them in force when it can.
func TestStartBesideAnotherOwner(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "nat", natNet))
		r.Kernel.Own(&nftables.OwnedError{Port: 4_000_000})
		r.Start()
		r.want("owned", service.StateFailed, finding.TableForeign)
		r.Kernel.Own(nil)
		pass(time.Minute)
		r.want("free", service.StateActive, "")
	})
}

// TestStartWithIPTablesBesideAnotherOwner of a table with the service's name, which
// networks in iptables' chains do not need.
func TestStartWithIPTablesBesideAnotherOwner(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Write("etc/virtfirewalld.conf", "firewall_backend = \"iptables\"\n")
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "nat", natNet))
		r.Kernel.Own(&nftables.OwnedError{Port: 4_000_000})
		r.Start()
		pass(moment)
		r.want("started", service.StateActive, "")
	})
}

// TestRemovedUntilReload: the network returns with the reload, unless its file was
// removed for good meanwhile.
func TestRemovedUntilReload(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Write("default.xml", servicetest.NetXML("default", "virbr0", "nat", natNet))
		r.Start()
		remove := func(o service.ChangeOptions) { r.Must(r.Service.RemoveNetwork(ctx, "default", o)) }
		remove(service.ChangeOptions{})
		r.Must(r.Service.Reload(ctx))
		r.want("reloaded", service.StateActive, "")
		remove(service.ChangeOptions{})
		remove(service.ChangeOptions{Persistent: true})
		r.Must(r.Service.Reload(ctx))
		if all := r.Service.AllNetworks(); len(all) > 0 {
			t.Errorf("there are still %+v", all)
		}
	})
}

// TestFlappingIsSummedUp: a network whose State changes all the time writes a few
// lines, and one that counts the rest.
func TestFlappingIsSummedUp(t *testing.T) {
	virtual(t, func(r *rig) {
		var log strings.Builder
		r.Log = servicetest.Logger(&log)
		r.Start()
		r.add("nat")
		for range 40 {
			r.Links.Delete(r.index("virbr0"))
			pass(moment)
			r.Links.Bridge("virbr0")
			pass(moment)
		}
		pass(2 * time.Minute)
		if n := strings.Count(log.String(), "a network is "); n > 20 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "changed further times") {
			t.Errorf("the rest is not counted:\n%s", log.String())
		}
	})
}
