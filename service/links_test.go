package service_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

func TestBridgeComesAndGoes(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Links.Delete(r.index("virbr0"))
		r.Start()
		r.add("nat")
		r.want("without a bridge", service.StateWaiting, finding.BridgeMissing)
		index := r.Links.Bridge("virbr0")
		pass(moment)
		r.want("with its bridge", service.StateActive, "")
		if !r.holds("Index:"+itoa(index)) || r.status("default").BridgeIndex != index {
			t.Errorf("the rules do not go by index %d: %q", index, r.Kernel.Lines())
		}
		r.Links.Delete(index)
		pass(moment)
		r.want("without it again", service.StateWaiting, finding.BridgeMissing)
		if r.holds("Index:" + itoa(index)) {
			t.Errorf("the rules go by an index that is gone: %q", r.Kernel.Lines())
		}
		r.Links.Add(watch.Link{Name: "virbr0", Up: true})
		pass(moment)
		r.want("something else has its name", service.StateDegraded, finding.NotABridge)
	})
}

func TestRenamedBridge(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		index := r.index("virbr0")
		r.Links.Rename(index, "lan0")
		pass(time.Second)
		r.wantFinding("renamed", finding.BridgeRenamed, true)
		if st := r.status("default"); st.Interface != "lan0" || st.BridgeIndex != index {
			t.Errorf("the bridge is %s, %d", st.Interface, st.BridgeIndex)
		}
		r.wantZone("renamed", "lan0", "libvirt")
		r.wantZone("renamed", "virbr0", "")
		if name, ok := r.Service.NetworkByBridge("lan0"); name != "default" || !ok {
			t.Errorf("lan0 is the bridge of %q", name)
		}
		err := r.Add(context.Background(), servicetest.NetXML("other", "lan0", "nat", "10.9.0.1/24"), service.ChangeOptions{})
		wantKind(t, "another network on the renamed bridge", err, service.BridgeInUse)
		r.Kill()
		r.Start()
		pass(time.Second)
		r.wantFinding("renamed, started again", finding.BridgeRenamed, true)
		r.Links.Bridge("virbr0") // takes the name, but is not the network's bridge
		pass(moment)
		if st := r.status("default"); st.BridgeIndex != index {
			t.Errorf("the network has gone over to another link: %d", st.BridgeIndex)
		}
	})
}

// TestRenamedToAnothersName: a link that is renamed to another network's bridge
// stays its own network's.
func TestRenamedToAnothersName(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("isolated")
		index := r.index("virbr0")
		r.Links.Delete(r.index("virbr1"))
		r.Must(r.Add(context.Background(), servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"), service.ChangeOptions{}))
		r.Links.Rename(index, "virbr1")
		pass(moment)
		if st := r.status("other"); st.State != service.StateWaiting || st.StateCode != finding.BridgeTaken {
			t.Errorf("the other network is %s (%s)", st.State, st.StateCode)
		}
		if st := r.status("default"); st.BridgeIndex != index {
			t.Errorf("the network's bridge is %d, want %d", st.BridgeIndex, index)
		}
		err := r.Service.UpdateNetwork(context.Background(), "other", map[string]any{"Bridge": "virbr1"}, service.ChangeOptions{})
		r.Must(err)
		r.Must(r.Service.RemoveNetwork(context.Background(), "default", service.ChangeOptions{}))
		pass(moment)
		if st := r.status("other"); st.BridgeIndex != index || st.State != service.StateActive {
			t.Errorf("after the other's removal the network is %s on %d", st.State, st.BridgeIndex)
		}
	})
}

func TestDefaultRouteThroughBridge(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("isolated")
		r.Links.Route(watch.Route{IPv6: true, Index: r.index("virbr0"), Gateway: netip.MustParseAddr("fe80::1"), FromRA: true})
		pass(moment)
		r.wantFinding("a guest's route", finding.BridgeUplink, true)
		if !r.holds("Comment:network default") {
			t.Error("the rules are gone")
		}
		r.Links.Route(watch.Route{Index: r.index("virbr1")})
		err := r.Add(context.Background(), servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"), service.ChangeOptions{})
		wantKind(t, "a network on the host's uplink", err, service.InvalidArgument)
		// A router among guests, behind taps alone, is not the host's.
		r.Links.Add(watch.Link{Name: "vnet0", Tap: true, Master: r.index("virbr1")})
		r.Must(r.Add(context.Background(), servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"), service.ChangeOptions{}))
	})
}

func TestForwardDevice(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		doc := `<network><name>default</name><bridge name='virbr0'/><forward mode='nat' dev='wan0'/><ip address='192.168.122.1' prefix='24'/></network>`
		r.Must(r.Add(context.Background(), doc, service.ChangeOptions{}))
		r.want("without its device", service.StateDegraded, finding.DeviceMissing)
		wan := r.Links.Add(watch.Link{Name: "eth7", Up: true, AltNames: watch.NewAltNames("wan0")})
		pass(moment)
		r.want("with it", service.StateActive, "")
		if !r.holds(`oifname "eth7"`) {
			t.Errorf("the rules do not have the device's own name: %q", r.Kernel.Lines())
		}
		r.Links.Rename(wan, "eth8")
		pass(moment)
		if !r.holds(`oifname "eth8"`) || r.holds(`oifname "eth7"`) {
			t.Errorf("the rules do not follow the device: %q", r.Kernel.Lines())
		}
		r.Links.Delete(wan)
		pass(moment)
		r.want("without it again", service.StateDegraded, finding.DeviceMissing)
	})
}

func TestSubnetsBesideTheHosts(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Links.Address(r.index("eth0"), "10.0.0.5/8")
		r.Links.Address(r.index("eth0"), "172.16.5.1/30")
		r.Start()
		ctx := context.Background()
		r.Must(r.Add(ctx, servicetest.NetXML("default", "virbr0", "nat", "10.9.0.1/24"), service.ChangeOptions{}))
		r.wantFinding("inside the uplink's", finding.SubnetInsideUplink, true)
		r.Must(r.Service.UpdateNetwork(ctx, "default", map[string]any{"Addresses": []string{"172.16.0.1/16"}}, service.ChangeOptions{}))
		r.wantFinding("around the uplink's", finding.SubnetAroundUplink, true)
		r.wantFinding("around the uplink's", finding.SubnetInsideUplink, false)
		err := r.Service.UpdateNetwork(ctx, "default", map[string]any{"Addresses": []string{"10.0.0.1/8"}}, service.ChangeOptions{})
		wantKind(t, "the uplink's own", err, service.SubnetOverlap)
	})
}

// TestLookingFails: if links cannot be queried, what is known of them is kept.
func TestLookingFails(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Links.Break(servicetest.ErrInjected)
		err := r.Add(context.Background(), servicetest.NetXML("other", "virbr1", "nat", "10.9.0.1/24"), service.ChangeOptions{})
		wantKind(t, "adding", err, service.ApplyFailed)
		index := r.index("virbr0")
		r.Links.Rename(index, "lan0")
		pass(moment)
		if !r.holds("Comment:network default") {
			t.Error("the rules are gone")
		}
		r.Links.Break(nil)
		pass(10 * moment) // a full comparison follows a failure
		pass(10 * moment)
		r.wantFinding("looked at again", finding.BridgeRenamed, true)
	})
}
