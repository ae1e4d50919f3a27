package bus

import (
	"strings"
	"syscall"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestExampleClients runs the documentation's two clients of 40 lines, as they
// stand there, against the real service: each lists, follows and adds.
func TestExampleClients(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ listed, added, followed, others, removed string }{
		"client.py": {
			"default: virbr0, nat, 192.168.122.1/24, 2001:db8:122::1/64: active",
			"lab: virbr5, nat, 192.168.150.1/24: waiting",
			"added lab", "added later", "removed default",
		},
		"client.sh": {
			"default: virbr0, nat, ['192.168.122.1/24', '2001:db8:122::1/64']: active",
			"lab: virbr5, nat, ['192.168.150.1/24']: waiting",
			"NetworkAdded ('lab', ", "NetworkAdded ('later', ", "NetworkRemoved ('default', ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.Started(t)
			rig.Must(t, r.CopyIn(rig.Source("docs/examples", name), "/root/"+name))
			r.Bridge("virbr0", rig.NatNet, rig.NatNet6)
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet, rig.NatNet6)))
			p := r.Start(name, "/root/"+name, "lab", "virbr5", "192.168.150.1/24")
			says(r, p, want.listed, want.added, want.followed)
			if bridge := r.Property("lab", "Bridge"); bridge != "virbr5" {
				t.Errorf("the client's network has bridge %v", bridge)
			}
			r.OK(r.AddXML(rig.Lab("later", 7)))
			r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
			says(r, p, want.others, want.removed)
			rig.Must(t, p.Signal(syscall.SIGINT))
			<-p.Done()
			// Without arguments it needs no root: it only lists and follows.
			out, _ := r.RunAs(65534, "timeout", "3", "/root/"+name, "another", "virbr6", "10.6.0.1/24")
			if rig.InTable(r.Table(), "another") {
				t.Errorf("user 65534 added a network:\n%s", out)
			}
		})
	}
}

// says waits until a program has written all of this.
func says(r *rig.Rig, p *host.Process, want ...string) {
	r.T.Helper()
	r.Until(p.Name+" writes "+strings.Join(want, "; "), func() bool {
		if !p.Running() {
			r.T.Fatalf("%s ended:\n%s", p.Name, p.Log())
		}
		return rig.HasAll(p.Log(), want)
	})
}
