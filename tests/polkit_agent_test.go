package tests

import (
	"context"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	rootPassword = "opensesame"
	terminal     = "/usr/local/bin/terminal.py"
	gate         = "/tmp/type-now"
)

// agentRig is a host whose administrator is root, with a password.
func agentRig(t *testing.T, rules string) *rig {
	t.Helper()
	r := newRig(t)
	fatal(t, r.CopyIn("testdata/terminal.py", terminal))
	r.Must("chmod", "755", terminal)
	_, err := r.RunInput("root:"+rootPassword+"\n", "chpasswd")
	fatal(t, err)
	r.rules(`polkit.addAdminRule(function() { return ["unix-user:0"]; });` + "\n" + rules)
	r.Polkit()
	r.StartDaemon()
	return r
}

// ctlOnTerminal runs virtfirewallctl as a user who types a password at the
// real agent, as soon as openGate says so.
func (r *rig) ctlOnTerminal(uid int, password string, args ...string) *host.Process {
	r.t.Helper()
	if _, err := r.RunAs(uid, "true"); err != nil {
		r.t.Fatal(err)
	}
	command := append([]string{"setpriv", "--reuid=2001", "--regid=2001", "--clear-groups", terminal, gate, password, "virtfirewallctl"}, args...)
	return r.Start("terminal", command...)
}

func (r *rig) openGate() {
	r.t.Helper()
	fatal(r.t, r.WriteFile(gate, nil, 0o644))
}

// asked waits until the agent asks for the password.
func (r *rig) asked(p *host.Process) {
	r.t.Helper()
	r.await("the question for a password", func() bool {
		if !p.Running() {
			r.t.Fatalf("the client ended without a question: %s", p.Log())
		}
		return strings.Contains(p.Log(), "assword:")
	})
}

func (r *rig) end(p *host.Process) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return p.Wait(ctx)
}

// TestPasswordOfAnAdministrator: the dialogue says what it is for, the right
// password lets the change be made, and a wrong one does not.
func TestPasswordOfAnAdministrator(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	r.must(r.AddXML(netXML("dev", "virbr6", "nat", "10.6.0.1/24")))
	r.openGate()
	p := r.ctlOnTerminal(alice, "wrong", "remove", "lab")
	err := r.end(p)
	contains(t, "a wrong password", p.Log(), "AUTHENTICATION FAILED", "manage-networks")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("a wrong password ended with %v", err)
	}
	p = r.ctlOnTerminal(alice, rootPassword, "remove", "lab")
	if err := r.end(p); err != nil {
		t.Errorf("the right password ended with %v", err)
	}
	contains(t, "the dialogue", p.Log(), "Authentication is required to change the firewall of virtual network lab", "root", "AUTHENTICATION COMPLETE")
	if names := r.names(); len(names) != 1 || names[0] != "dev" {
		t.Errorf("there are the networks %q", names)
	}
	// A change with two sides is asked about once: the password holds for both.
	fatal(t, r.WriteFile("/tmp/dev.xml", []byte(netXML("dev", "virbr7", "nat", "10.6.0.1/24")), 0o644))
	p = r.ctlOnTerminal(alice, rootPassword, "add", "/tmp/dev.xml", "--replace")
	if err := r.end(p); err != nil || strings.Count(p.Log(), "assword:") != 1 {
		t.Errorf("replacing ended with %v after %s", err, p.Log())
	}
}

// TestWhatWasApprovedIsDone: while an administrator thinks, the network gets
// another bridge. The approval is not for that.
func TestWhatWasApprovedIsDone(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	p := r.ctlOnTerminal(alice, rootPassword, "remove", "lab")
	r.asked(p)
	r.must(r.Network("lab", "Update", opts("Bridge", "virbr6"), opts()))
	// Others do not wait for the one who thinks.
	r.must(r.AddXML(netXML("dev", "virbr7", "nat", "10.7.0.1/24")))
	r.must(r.as(bob).Manager("ListNetworks"))
	r.openGate()
	err := r.end(p)
	contains(t, "the refusal", p.Log(), "AUTHENTICATION COMPLETE", "changed by another", "call again")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("the client ended with %v", err)
	}
	if got := r.Property("lab", "Bridge"); got != "virbr6" {
		t.Errorf("the bridge is %v", got)
	}
}

// TestCallerLeavesWhileAsked: what nobody waits for any more is not done, and
// the dialogue ends.
func TestCallerLeavesWhileAsked(t *testing.T) {
	t.Parallel()
	r := agentRig(t, "")
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	p := r.ctlOnTerminal(alice, rootPassword, "remove", "lab")
	r.asked(p)
	// The client, but not the agent: that one is its child and asks on.
	r.Must("sh", "-c", `kill -KILL $(grep -alZ '^virtfirewallctl' /proc/[0-9]*/cmdline | tr '\0' '\n' | cut -d/ -f3)`)
	r.await("the denial", func() bool { return strings.Contains(r.Daemon.Log(), "the caller has left the bus") })
	r.openGate()
	_ = r.end(p)
	r.must(r.Manager("Reapply"))
	if names := r.names(); len(names) != 1 {
		t.Errorf("there are the networks %q", names)
	}
}
