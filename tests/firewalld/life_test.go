package firewalld

import (
	"fmt"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// bootedRig returns a host that systemd has booted, with a firewalld that has not
// been started and has this backend, and the service.
func bootedRig(t *testing.T, firewalld string, zones ...string) *rig.Rig {
	t.Helper()
	r := rig.Over(t, host.New(t, host.Booted()))
	rig.Install(t, r.Host)
	r.OK(r.Conn.BusObject().Call("org.freedesktop.DBus.ReloadConfig", 0))
	r.Firewalld.SetZones(zones...)
	r.Must("sed", "-i", "s/^FirewallBackend=.*/FirewallBackend="+firewalld+"/", "/etc/firewalld/firewalld.conf")
	return r
}

// firewalldAnswers reports whether firewalld is through with its start.
func firewalldAnswers(r *rig.Rig) bool {
	return r.Firewalld.Call("getDefaultZone").Err == nil
}

// TestBoundAgainWhateverFirewalldDoes takes the real firewalld through its life
// under the real systemd. Each time every bridge is in its zone again, and the
// rules are in force, by no other cause than that.
func TestBoundAgainWhateverFirewalldDoes(t *testing.T) {
	t.Parallel()
	for _, theirs := range []string{"nftables", "iptables"} {
		for _, ours := range []string{"nftables", "iptables"} {
			t.Run("firewalld with "+theirs+", virtfirewalld with "+ours, func(t *testing.T) {
				t.Parallel()
				liveThrough(t, theirs, ours)
			})
		}
	}
}

func liveThrough(t *testing.T, theirs, ours string) {
	r := bootedRig(t, theirs, rig.AllZones...)
	// What iptables does not cover is said once.
	r.Announce("iptables holds libvirt's own rules", "asking firewalld for its")
	r.Configure(fmt.Sprintf("firewall_backend = %q\n", ours))
	internet := r.Internet()
	r.StartDaemon()
	addKinds(r, "")
	guest := r.Guest("br-n", "guest", "10.7.0.10/24", "2001:db8:7::10/64")
	rig.Natted(t, guest, internet, "without firewalld")
	wantFirewalld(r, false, "")
	rules := rig.OwnRules(r.Host, ours)
	for _, event := range []struct {
		what    string
		command []string
	}{
		{"a late start", []string{"systemctl", "start", "firewalld"}},
		{"a reload", []string{"firewall-cmd", "--reload"}},
		{"a complete reload", []string{"firewall-cmd", "--complete-reload"}},
		{"a reload by systemd", []string{"systemctl", "reload", "firewalld"}},
		{"a restart", []string{"systemctl", "restart", "firewalld"}},
		{"a stop", []string{"systemctl", "stop", "firewalld"}},
		{"a start after the stop", []string{"systemctl", "start", "firewalld"}},
		{"a crash", []string{"systemctl", "kill", "-s", "KILL", "firewalld"}},
		{"a start after the crash", []string{"systemctl", "start", "firewalld"}},
	} {
		r.Must(event.command...)
		switch event.what {
		case "a stop", "a crash":
			r.Until("the service knows", func() bool { running, _, _ := firewalldProperties(r); return !running })
			r.Until(event.what+" leaves the rules", func() bool { return rig.OwnRules(r.Host, ours) == rules })
		default:
			r.Until("firewalld answers", func() bool { return firewalldAnswers(r) })
			answered := time.Now()
			awaitAllBound(r)
			bound := time.Since(answered)
			r.Until("the rules are there after "+event.what, func() bool { return rig.OwnRules(r.Host, ours) == rules })
			t.Logf("after %s: bound %s after firewalld answered, rules %s", event.what,
				bound.Round(time.Millisecond), time.Since(answered).Round(time.Millisecond))
			wantFirewalld(r, true, theirs, rig.AllZones...)
		}
		rig.Natted(t, guest, internet, "after "+event.what)
		for _, k := range kinds {
			if state, reason := r.State(k.name); state != "active" {
				t.Errorf("after %s %s is %s: %s", event.what, k.mode, state, reason)
			}
		}
	}
}

// awaitAllBound waits until firewalld and the service have every bridge of the
// kinds in its zone.
func awaitAllBound(r *rig.Rig) {
	r.T.Helper()
	for _, k := range kinds {
		r.Firewalld.AwaitZone(k.name, "br-"+k.name, k.zone)
	}
}
