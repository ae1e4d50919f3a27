package polkit

import (
	"context"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

const (
	rootPassword = "opensesame"
	terminal     = "/usr/local/bin/terminal.py"
	gate         = "/tmp/type-now"
)

// agentRig returns a host whose administrator is root, with a password.
func agentRig(t *testing.T, rules string) *rig.Rig {
	t.Helper()
	r := rig.New(t)
	rig.Must(t, r.CopyIn("testdata/terminal.py", terminal))
	r.Must("chmod", "755", terminal)
	_, err := r.RunInput("root:"+rootPassword+"\n", "chpasswd")
	rig.Must(t, err)
	r.Polkit.Rules(`polkit.addAdminRule(function() { return ["unix-user:0"]; });` + "\n" + rules)
	r.Polkit.Start()
	r.StartDaemon()
	return r
}

// ctlOnTerminal runs virtfirewallctl as a user who types a password at the
// real agent, as soon as openGate says so.
func ctlOnTerminal(r *rig.Rig, uid int, password string, args ...string) *host.Process {
	r.T.Helper()
	if _, err := r.RunAs(uid, "true"); err != nil {
		r.T.Fatal(err)
	}
	command := append([]string{"setpriv", "--reuid=2001", "--regid=2001", "--clear-groups", terminal, gate, password, "virtfirewallctl"}, args...)
	return r.Start("terminal", command...)
}

func openGate(r *rig.Rig) {
	r.T.Helper()
	rig.Must(r.T, r.WriteFile(gate, nil, 0o644))
}

// asked waits until the agent asks for the password.
func asked(r *rig.Rig, p *host.Process) {
	r.T.Helper()
	r.Until("the question for a password", func() bool {
		if !p.Running() {
			r.T.Fatalf("the client ended without a question: %s", p.Log())
		}
		return strings.Contains(p.Log(), "assword:")
	})
}

func end(r *rig.Rig, p *host.Process) error {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rig.CallTimeout)
	defer cancel()
	return p.Wait(ctx)
}

// TestPasswordOfAnAdministrator: the dialogue names its purpose, the right
// password permits the change, and a wrong one does not.
func TestPasswordOfAnAdministrator(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	r.OK(r.AddXML(rig.NetXML("dev", "virbr6", "nat", "10.6.0.1/24")))
	openGate(r)
	p := ctlOnTerminal(r, rig.Alice, "wrong", "remove", "lab")
	err := end(r, p)
	rig.WantText(t, "a wrong password", p.Log(), "AUTHENTICATION FAILED", "manage-networks")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("a wrong password ended with %v", err)
	}
	p = ctlOnTerminal(r, rig.Alice, rootPassword, "remove", "lab")
	if err := end(r, p); err != nil {
		t.Errorf("the right password ended with %v", err)
	}
	rig.WantText(t, "the dialogue", p.Log(), "Authentication is required to change the firewall of virtual network lab", "root", "AUTHENTICATION COMPLETE")
	if names := r.Names(); len(names) != 1 || names[0] != "dev" {
		t.Errorf("there are the networks %q", names)
	}
	// A change with two sides is asked about once: the password holds for both.
	r.Write("/tmp/dev.xml", rig.NetXML("dev", "virbr7", "nat", "10.6.0.1/24"))
	p = ctlOnTerminal(r, rig.Alice, rootPassword, "add", "/tmp/dev.xml", "--replace")
	if err := end(r, p); err != nil || strings.Count(p.Log(), "assword:") != 1 {
		t.Errorf("replacing ended with %v after %s", err, p.Log())
	}
}

// TestWhatWasApprovedIsDone: while an administrator thinks, the network gets
// another bridge. The approval is not for that.
func TestWhatWasApprovedIsDone(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	p := ctlOnTerminal(r, rig.Alice, rootPassword, "remove", "lab")
	asked(r, p)
	r.OK(r.Network("lab", "Update", rig.Opts("Bridge", "virbr6"), rig.Opts()))
	// Others do not wait for the one who thinks.
	r.OK(r.AddXML(rig.NetXML("dev", "virbr7", "nat", "10.7.0.1/24")))
	r.OK(r.As(rig.Bob).Manager("ListNetworks"))
	openGate(r)
	err := end(r, p)
	rig.WantText(t, "the refusal", p.Log(), "AUTHENTICATION COMPLETE", "changed by another", "call again")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("the client ended with %v", err)
	}
	if got := r.Property("lab", "Bridge"); got != "virbr6" {
		t.Errorf("the bridge is %v", got)
	}
}

// TestCallerLeavesWhileAsked: a call whose caller has left is not carried out,
// and the dialogue ends.
func TestCallerLeavesWhileAsked(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	p := ctlOnTerminal(r, rig.Alice, rootPassword, "remove", "lab")
	asked(r, p)
	// The client, but not the agent: that one is its child and asks on.
	r.Must("sh", "-c", `kill -KILL $(grep -alZ '^virtfirewallctl' /proc/[0-9]*/cmdline | tr '\0' '\n' | cut -d/ -f3)`)
	r.Until("the denial", func() bool { return strings.Contains(r.Daemon.Log(), "the caller has left the bus") })
	openGate(r)
	_ = end(r, p)
	r.OK(r.Manager("Reapply"))
	if names := r.Names(); len(names) != 1 {
		t.Errorf("there are the networks %q", names)
	}
}
