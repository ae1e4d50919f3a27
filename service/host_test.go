package service_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

func (r *rig) off(setting string) {
	r.Needs.SwitchOff(setting)
	r.Links.Tell(watch.Change{Kind: watch.ForwardingOff})
	pass(moment)
}

// TestForwarding: forwarding is switched on, and on again, and State names what
// keeps switching it off.
func TestForwarding(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("isolated")
		if r.Needs.Forwards(servicetest.Forward4) {
			t.Error("forwarding is on for an isolated network")
		}
		r.Must(r.Service.UpdateNetwork(context.Background(), "default", map[string]any{"ForwardMode": "nat"}, service.ChangeOptions{}))
		if !r.Needs.Forwards(servicetest.Forward4) || r.Needs.Forwards(servicetest.Forward6) {
			t.Error("what a network of IPv4 needs is off, or what it does not need is on")
		}
		r.Events()
		r.off(servicetest.Forward4)
		if causes := r.repaired(); len(causes) != 1 || !strings.Contains(causes[0], "ip_forward had been switched off") || !r.Needs.Forwards(servicetest.Forward4) {
			t.Errorf("switched off, it was told as %q", causes)
		}
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			r.off(servicetest.Forward4)
		}
		r.want("switched off again and again", service.StateDegraded, finding.ForwardingOff)
		pass(5 * time.Minute)
		r.want("left alone", service.StateActive, "")
	})
}

// TestForwardingThatMustNotBe, or cannot be, switched on: State gives the reason
// until it can.
func TestForwardingThatMustNotBe(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.Needs.Refuse("eth0 would lose its default route", nil)
		r.add("nat")
		r.want("refused", service.StateDegraded, finding.ForwardingOff)
		r.Needs.Refuse("", servicetest.ErrInjected)
		_, err := r.Service.Reapply(context.Background())
		r.Must(err)
		r.want("failed", service.StateDegraded, finding.ForwardingOff)
		r.Needs.Refuse("", nil)
		r.Links.Route(watch.Route{IPv6: true, Index: r.index("eth0")})
		pass(moment)
		r.want("possible by now", service.StateActive, "")
	})
}

func TestAdvertisements(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("open")
		index := r.index("virbr0")
		if got := r.Needs.Silenced(); len(got) != 1 || got[0] != index {
			t.Errorf("ignored are those of %v, want %d", got, index)
		}
		r.Events()
		r.Needs.Hear(index)
		r.Links.Tell(watch.Change{Kind: watch.Advertised, New: watch.Link{Index: index}})
		pass(moment)
		if causes := r.repaired(); len(causes) != 1 || !strings.Contains(causes[0], "advertisements") {
			t.Errorf("switched on, it was told as %q", causes)
		}
		r.Must(r.Service.RemoveNetwork(context.Background(), "default", service.ChangeOptions{}))
		if got := r.Needs.Silenced(); len(got) > 0 {
			t.Errorf("ignored are still those of %v", got)
		}
	})
}

// TestBesideTheRules covers connections that began before their translation, and
// DHCP checksums.
func TestBesideTheRules(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		n := strings.Replace(servicetest.NetXML("default", "virbr0", "nat", natNet), "'24'/>", "'24'><dhcp><range start='192.168.122.2' end='192.168.122.9'/></dhcp></ip>", 1)
		r.Must(r.Add(context.Background(), n, service.ChangeOptions{}))
		pass(time.Second)
		if got := r.Needs.Retranslated(); len(got) == 0 || got[0] != "default" {
			t.Errorf("connections of %q were looked at", got)
		}
		if got := r.Needs.Filled()["virbr0"]; got != (host.DHCP{Network: "default", Index: r.index("virbr0")}) {
			t.Errorf("checksums are filled in for %v", got)
		}
		// libvirt may be starting what it has no readable document of, until it has.
		r.Must(os.WriteFile(r.LibvirtDir+"/default.xml", []byte("<networkstatus>"), 0o600))
		r.Libvirt.Changed()
		pass(time.Second)
		if got := r.Needs.Filled()["virbr0"]; !got.Starting {
			t.Errorf("while libvirt may start it: %v", got)
		}
		r.Must(os.WriteFile(r.LibvirtDir+"/default.xml", []byte(libvirtsDoc), 0o600))
		r.Libvirt.Changed()
		pass(time.Second)
		if got := r.Needs.Filled()["virbr0"]; got.Starting {
			t.Errorf("once libvirt has started it: %v", got)
		}
	})
}

const libvirtsDoc = `<networkstatus><class_id bitmap='0-2'/><floor sum='0'/><network><name>default</name><uuid>1c1f0a6e-5d2b-4c4e-9b5e-0c3f9a3c4f11</uuid>
<forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/><ip address='192.168.122.1' netmask='255.255.255.0'/></network></networkstatus>`

// TestBesideLibvirt: a network reports that libvirt has it too, and whether
// libvirt's own rules are missing.
func TestBesideLibvirt(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.wantFinding("without libvirt", finding.LibvirtHasNetwork, false)
		r.Must(os.WriteFile(r.LibvirtDir+"/default.xml", []byte(libvirtsDoc), 0o600))
		r.Libvirt.Changed()
		pass(time.Second)
		r.wantFinding("beside libvirt", finding.LibvirtHasNetwork, true)
		r.wantFinding("beside libvirt", finding.LibvirtRulesMissing, false)
		r.Libvirt.Lose(true, nil)
		for range 3 {
			r.Libvirt.Changed()
			pass(time.Second)
		}
		r.wantFinding("without libvirt's rules", finding.LibvirtRulesMissing, true)
		r.Libvirt.Lose(false, servicetest.ErrInjected)
		r.Libvirt.Changed()
		pass(time.Minute)
		r.Libvirt.Lose(false, nil)
		pass(time.Minute)
		r.wantFinding("with them", finding.LibvirtRulesMissing, false)
		r.use("iptables")
		r.Libvirt.Changed()
		pass(time.Second)
		// The bridge stays in libvirt's own zone when the network is removed.
		r.Must(r.Service.RemoveNetwork(context.Background(), "default", service.ChangeOptions{}))
		r.wantZone("removed", "virbr0", "libvirt")
	})
}
