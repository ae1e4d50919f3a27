package tests

import (
	"strings"
	"syscall"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
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
			r := startedRig(t)
			if err := r.CopyIn("../docs/examples/"+name, "/root/"+name); err != nil {
				t.Fatal(err)
			}
			r.Bridge("virbr0", natNet, nat6Net)
			r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet, nat6Net)))
			p := r.Start(name, "/root/"+name, "lab", "virbr5", "192.168.150.1/24")
			r.says(p, want.listed, want.added, want.followed)
			if bridge := r.Property("lab", "Bridge"); bridge != "virbr5" {
				t.Errorf("the client's network has bridge %v", bridge)
			}
			r.must(r.AddXML(lab("later", 7)))
			r.must(r.Manager("RemoveNetwork", "default", opts()))
			r.says(p, want.others, want.removed)
			if err := p.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			// Without arguments it needs no root: it only lists and follows.
			out, _ := r.RunAs(65534, "timeout", "3", "/root/"+name, "another", "virbr6", "10.6.0.1/24")
			if strings.Contains(r.Table(), "another") {
				t.Errorf("user 65534 added a network:\n%s", out)
			}
		})
	}
}

// says waits until a program has written all of this.
func (r *rig) says(p *host.Process, want ...string) {
	r.t.Helper()
	r.until(p.Name+" writes "+strings.Join(want, "; "), func() bool {
		if !p.Running() {
			r.t.Fatalf("%s ended:\n%s", p.Name, p.Log())
		}
		return containsAll(p.Log(), want)
	})
}
