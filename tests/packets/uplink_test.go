package packets

import (
	"fmt"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestDefaultRouteThroughGuestsTakesNoRules: a guest, a router among guests or an
// administrator can make the host route through a network's bridge. The rules
// stay, the network can be changed, and a finding reports it.
func TestDefaultRouteThroughGuestsTakesNoRules(t *testing.T) {
	t.Parallel()
	routes := map[string]string{
		"advertised": "ip -6 route add default via fe80::1 dev virbr0 proto ra metric 4000",
		"a router":   "ip route add default via 192.168.122.10 dev virbr0 metric 4000",
	}
	eachBackend(t, func(t *testing.T, backend string) {
		r, guest, internet := identityRig(t, backend)
		held(t, guest, internet, "before")
		for _, what := range []string{"advertised", "a router"} {
			r.Must(strings.Fields(routes[what])...)
			r.Findings.Await("bridge-is-uplink", "virbr0")
			steps := []struct {
				name string
				do   func()
			}{
				{"reapplied", func() { r.OK(r.Manager("Reapply")) }},
				{"reloaded", func() { r.OK(r.Manager("Reload")) }},
				{"killed and started", func() { r.KillDaemon(); r.StartDaemon() }},
				{"restarted", func() { r.StopDaemon(); r.StartDaemon() }},
				{"updated", func() { r.OK(r.Network("default", "Update", rig.Opts("DNS", false), rig.Opts())) }},
				{"replaced", func() { r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "Replace", true)) }},
			}
			for _, step := range steps {
				step.do()
				when := fmt.Sprintf("default route: %s, %s", what, step.name)
				held(t, guest, internet, when)
				if st, reason := r.State("default"); st != "active" {
					t.Errorf("%s: the network is %s: %s", when, st, reason)
				}
			}
			r.OK(r.AddXML(rig.NetXML("beside", "virbr7", "nat", "10.77.0.1/24")))
			r.OK(r.Manager("RemoveNetwork", "beside", rig.Opts()))
			r.Must(strings.Fields(strings.Replace(routes[what], " add ", " del ", 1))...)
			r.Findings.AwaitNone("bridge-is-uplink")
		}
	})
}
