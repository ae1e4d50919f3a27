package lifecycle

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// standing is what the service logs of each network whose file cannot be used.
const standing = "in force by its last good definition"

// brokenBy are ways in which an administrator spoils a file.
var brokenBy = map[string][]string{
	"mode":   {"chmod", "664"},
	"owner":  {"chown", "nobody"},
	"syntax": {"sed", "-i", "s/<name>/<name/"},
	"schema": {"sed", "-i", "s/<bridge /<bridge unknown='1' /"},
	"empty":  {"truncate", "-s", "0"},
	"cut":    {"truncate", "-s", "40"},
}

// isolatedRig has an isolated network, persistent or not, with a guest, and a
// way out of the host that the guest must never have.
func isolatedRig(t *testing.T, backend string, persistent bool) (r *rig.Rig, guest, internet *host.Peer) {
	t.Helper()
	r = rig.New(t)
	r.Announce(standing, "state_code=file-unusable", "what the service stored cannot be used")
	if backend == "iptables" {
		r.Announce(rig.Uncovered)
	}
	r.Write(rig.ConfigFile, "firewall_backend = \""+backend+"\"\n")
	r.StartDaemon()
	r.Bridge("virbr7", "10.7.0.1/24", "2001:db8:7::1/64")
	guest, internet = r.Guest("virbr7", "guest", "10.7.0.10/24", "2001:db8:7::10/64"), r.Internet()
	r.Must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for _, to := range outsideOfAll {
		if out := host.Try(guest, internet, host.Probe{Proto: host.UDP, To: to}); !out.Seen.IsValid() {
			t.Fatalf("without rules the guest does not reach %s: %v", to, out)
		}
	}
	r.OK(r.AddXML(rig.NetXML("closed", "virbr7", "isolated", "10.7.0.1/24", "2001:db8:7::1/64"), "Persistent", persistent))
	return r, guest, internet
}

// TestBrokenFileOpensNothing: whatever becomes of a network's file, and
// however the service ends, its guests are where they were, and the network
// reports what is wrong until the file is fixed.
func TestBrokenFileOpensNothing(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		for kind, file := range map[string]string{"persistent": rig.NetworksDir + "/closed.xml", "runtime": rig.RuntimeDir + "/networks/closed.xml"} {
			t.Run(backend+"/"+kind, func(t *testing.T) {
				t.Parallel()
				r, guest, internet := isolatedRig(t, backend, kind == "persistent")
				rules := rig.WithoutCounters(r.Must("virtfirewallctl", "rules", "closed"))
				r.Must("cp", "-p", file, "/root/good.xml")
				kill := false
				for way, command := range brokenBy {
					r.Must(append(command, file)...)
					r.Restart(kill)
					r.WantNames("broken: "+way, "closed")
					rig.Same(t, way+": the rules", rules, rig.WithoutCounters(r.Must("virtfirewallctl", "rules", "closed")))
					if state, code, reason := r.Property("closed", "State"), r.Property("closed", "StateCode"), r.Property("closed", "StateReason").(string); state != "degraded" ||
						code != "file-unusable" || !strings.Contains(reason, file) || !strings.Contains(reason, "reload") {
						t.Errorf("%s: %v, %v, %v", way, state, code, reason)
					}
					refused(t, guest, internet, way)
					r.Must("cp", "-p", "/root/good.xml", file)
					r.OK(r.Manager("Reload"))
					if state := r.Property("closed", "State"); state != "active" {
						t.Errorf("%s, mended: %v, %v", way, state, r.Property("closed", "StateReason"))
					}
					kill = !kill
				}
			})
		}
	}
}

// TestFolderThatIsGone takes no network with it, at a start or a reload.
func TestFolderThatIsGone(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r, guest, internet := isolatedRig(t, backend, true)
			r.Must("mv", rig.NetworksDir, "/root/away")
			r.WantRefusal(r.Manager("Reload"), "InvalidArgument", rig.NetworksDir, "put it back")
			refused(t, guest, internet, "after a reload")
			r.Restart(true)
			r.WantNames("without the folder", "closed")
			refused(t, guest, internet, "after a start")
			r.WantError(r.AddXML(rig.NetXML("more", "virbr8", "isolated"), "Persistent", true), "ApplyFailed")
			r.Must("mv", "/root/away", rig.NetworksDir)
			r.OK(r.Manager("Reload"))
			if state := r.Property("closed", "State"); state != "active" {
				t.Errorf("put back: %v, %v", state, r.Property("closed", "StateReason"))
			}
			r.Must("rm", rig.NetworksDir+"/closed.xml") // a decision
			r.Restart(false)
			r.WantNames("removed by hand")
		})
	}
}

// TestStateFilesThatCannotBeUsed do not keep the service from starting.
func TestStateFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	r, guest, internet := isolatedRig(t, "nftables", false)
	for _, name := range []string{"journal.json", "counters.json"} {
		for _, text := range []string{"", "[{", "nothing", `[{"Folder":"persistent","File":"..","Delete":true}]`} {
			r.StopDaemon()
			r.Write(rig.RuntimeDir+"/"+name, text)
			r.StartDaemon()
			r.WantNames(name, "closed")
			refused(t, guest, internet, name)
			if kept := r.File(rig.RuntimeDir + "/" + name + ".broken"); kept != text {
				t.Errorf("%s: kept is %q", name, kept)
			}
			if log := r.Daemon.Log(); !strings.Contains(log, rig.RuntimeDir+"/"+name) {
				t.Errorf("the log does not name %s:\n%s", name, log)
			}
		}
	}
}

// refused checks that an isolated guest reaches nothing beyond the host.
func refused(t *testing.T, guest, internet *host.Peer, what string) {
	t.Helper()
	for _, to := range outsideOfAll {
		if out := host.Try(guest, internet, host.Probe{Proto: host.UDP, To: to}); out.Seen.IsValid() || out.Err != nil {
			t.Errorf("%s: from the guest to %s: %v", what, to, out)
		}
	}
}

var outsideOfAll = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:0"), netip.MustParseAddrPort("[2001:db8:ffff::1]:0")}
