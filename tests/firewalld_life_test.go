package tests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// bootedRig is a host that systemd has booted, with a firewalld that has not
// been started and has this backend, and the service.
func bootedRig(t *testing.T, firewalld string, zones ...string) *rig {
	t.Helper()
	r := &rig{Host: host.New(t, host.Booted()), t: t}
	t.Cleanup(r.checkLogs)
	r.install()
	r.Must("busctl", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig")
	conn, err := r.DialBus(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.bus = conn
	r.zoneFiles(zones...)
	r.Must("sed", "-i", "s/^FirewallBackend=.*/FirewallBackend="+firewalld+"/", "/etc/firewalld/firewalld.conf")
	return r
}

// firewalldAnswers says whether firewalld is through with its start.
func (r *rig) firewalldAnswers() bool {
	call := r.firewalldCall("getDefaultZone")
	return call.Err == nil
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
	r := bootedRig(t, theirs, allZones...)
	// What iptables does not cover is said once.
	r.Announce("iptables holds libvirt's own rules", "asking firewalld for its")
	r.configure(fmt.Sprintf("firewall_backend = %q\n", ours))
	internet := r.Internet()
	r.StartDaemon()
	addKinds(r, "")
	guest := r.Guest("br-n", "guest", "10.7.0.10/24", "2001:db8:7::10/64")
	natted(t, guest, internet, "without firewalld")
	r.wantFirewalld(false, "")
	rules := r.ownRules(ours)
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
			r.until("the service knows", func() bool { running, _, _ := r.firewalldProperties(); return !running })
			r.until(event.what+" leaves the rules", func() bool { return r.ownRules(ours) == rules })
		default:
			r.until("firewalld answers", r.firewalldAnswers)
			answered := time.Now()
			r.awaitAllBound()
			bound := time.Since(answered)
			r.until("the rules are there after "+event.what, func() bool { return r.ownRules(ours) == rules })
			t.Logf("after %s: bound %s after firewalld answered, rules %s", event.what,
				bound.Round(time.Millisecond), time.Since(answered).Round(time.Millisecond))
			r.wantFirewalld(true, theirs, allZones...)
		}
		natted(t, guest, internet, "after "+event.what)
		for _, k := range kinds {
			if state, reason := r.State(k.name); state != "active" {
				t.Errorf("after %s %s is %s: %s", event.what, k.mode, state, reason)
			}
		}
	}
}

// awaitAllBound waits until firewalld and the service have every bridge of the
// kinds in its zone.
func (r *rig) awaitAllBound() {
	r.t.Helper()
	for _, k := range kinds {
		r.awaitZone(k.name, "br-"+k.name, k.zone)
	}
}

// ownRules are the service's rules in the kernel, whatever order tables and
// firewalld's own lines are in.
func (r *rig) ownRules(backend string) string {
	r.t.Helper()
	if backend == "nftables" {
		return strings.Join(tableLinesUncounted(r.Host), "\n")
	}
	var out []string
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(r.Must(save)) {
			if strings.Contains(line, "LIBVIRT_") && strings.HasPrefix(line, "-A") {
				out = append(out, line)
			}
		}
	}
	slices.Sort(out) // networks' rules stand in the order in which they came
	return strings.Join(out, "")
}

// tableLinesUncounted leaves the counters' values out.
func tableLinesUncounted(h *host.Host) []string { return uncounted(tableLines(h)) }
