package backends

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestForeignFlushIsMended at once where the table is not protected from it, and
// by the next start where the service was down: with all networks, and with
// counters not below what was last seen of them.
func TestForeignFlushIsMended(t *testing.T) {
	t.Parallel()
	const flush = "nft flush ruleset"
	cases := map[string]struct {
		owned bool
		mend  func(r *rig.Rig)
	}{
		"by itself": {false, func(r *rig.Rig) {
			told := r.Repairs()
			r.Must(strings.Fields(flush)...)
			awaitRepairs(r, told, "default", "kept")
		}},
		"flushed, restarted": {false, func(r *rig.Rig) {
			r.Must(strings.Fields(flush)...)
			r.Restart(false)
		}},
		"flushed, killed": {false, func(r *rig.Rig) {
			r.Must(strings.Fields(flush)...)
			r.AwaitSaved()
			r.Restart(true)
		}},
		"stopped, flushed": {true, func(r *rig.Rig) {
			r.StopDaemon()
			r.Must(strings.Fields(flush)...)
			r.StartDaemon()
		}},
		"killed, flushed": {true, func(r *rig.Rig) {
			r.AwaitSaved()
			r.KillDaemon()
			r.Must(strings.Fields(flush)...)
			r.StartDaemon()
		}},
		"stopped, table deleted": {true, func(r *rig.Rig) {
			r.StopDaemon()
			r.Must("nft", "delete", "table", "inet", "libvirt_network")
			r.StartDaemon()
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			r.Write(rig.ConfigFile, fmt.Sprintf("own_table = %v\n", c.owned))
			r.StartDaemon()
			r.Bridge("virbr0", rig.NatNet)
			r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
			r.OK(r.AddXML(rig.NetXML("kept", "virbr7", "route", "10.7.0.1/24"), "Persistent", true))
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
			rig.Natted(t, guest, internet, "before")
			rig.Guarded(t, guest, internet, "before")
			table, counted := rig.Uncounted(rig.TableLines(r.Host)), r.Counters("default")
			if counted["FromGuestPackets"] == 0 || counted["RejectedToGuestPackets"] == 0 {
				t.Errorf("nothing was counted: %v", counted)
			}
			c.mend(r)
			if diff := cmp.Diff(table, rig.Uncounted(rig.TableLines(r.Host))); diff != "" {
				t.Errorf("the table is not as it was (-before +after):\n%s", diff)
			}
			r.NotBelow("mended", "default", counted)
			rig.Natted(t, guest, internet, "mended")
			rig.Guarded(t, guest, internet, "mended")
			if n := r.Reapply(); n != 0 {
				t.Errorf("%d repairs after it was mended", n)
			}
		})
	}
}

// TestForeignChangesAreMended by themselves, and reported once for the networks
// whose rules they broke.
func TestForeignChangesAreMended(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Write(rig.ConfigFile, "own_table = false\n")
	r.StartDaemon()
	for i, name := range []string{"a", "b", "c"} {
		r.OK(r.AddXML(rig.Lasting(name, i+1, "nat")))
	}
	// One that has chains of its own, since its subnet has another length.
	r.OK(r.AddXML(rig.NetXML("own", "virbr9", "nat", "10.9.0.1/20")))
	whole := rig.TableLines(r.Host)
	damages := map[string][]string{
		"flush chain inet libvirt_network net_own_from":                                {"own"},
		"add rule inet libvirt_network net_own_from accept":                            {"own"},
		"flush chain inet libvirt_network net_own_nat":                                 {"own"},
		"delete element inet libvirt_network guests_name { virbr1 }":                   {"a"},
		"delete element inet libvirt_network translated4_name { virbr2 . 10.2.0.0 }":   {"b"},
		"delete element inet libvirt_network may_leave4_name { virbr2 . 10.2.0.0 }":    {"b"},
		"flush set inet libvirt_network replies4_name":                                 {"a", "b", "c"},
		"flush map inet libvirt_network to_name":                                       {"own"},
		"flush chain inet libvirt_network forward_guests":                              {"a", "b", "c", "own"},
		"flush chain inet libvirt_network source_id":                                   {"a", "b", "c", "own"},
		"flush chain inet libvirt_network refuse":                                      {"a", "b", "c", "own"},
		"insert rule inet libvirt_network forward_guests accept":                       {"a", "b", "c", "own"},
		"add element inet libvirt_network from_name { eth7 : goto net_own_from }":      nil,
		"add chain inet libvirt_network stray":                                         nil,
		"delete table inet libvirt_network":                                            {"a", "b", "c", "own"},
		"add table inet foreign { chain c { type filter hook forward priority 5; } ;}": nil,
	}
	for damage, want := range damages {
		told := r.Repairs()
		r.Must("nft", damage)
		awaitRepairs(r, told, want...)
		r.AwaitTable(damage, whole)
		if n := r.Reapply(); n != 0 {
			t.Errorf("%s: another %d repairs", damage, n)
		}
		if got := told(); len(got) != len(want) {
			t.Errorf("%s: Repaired %q, want %q once each", damage, got, want)
		}
	}
	if foreign := r.Must("nft", "list", "tables"); !strings.Contains(foreign, "inet foreign") {
		t.Error("a foreign table was removed")
	}
}

// awaitRepairs waits until these networks were reported as repaired, each once
// and with the program that caused it.
func awaitRepairs(r *rig.Rig, told func() map[string][]string, networks ...string) {
	r.T.Helper()
	if !rig.Await(rig.CallTimeout, func() bool { return len(told()) >= len(networks) }) {
		r.T.Fatalf("Repaired for %q, want %q", told(), networks)
	}
	for _, name := range networks {
		if causes := told()[name]; len(causes) != 1 || !strings.Contains(causes[0], "nft (pid ") {
			r.T.Errorf("network %s was repaired because of %q", name, causes)
		}
	}
}

// TestReapplyCountsNetworks that were damaged, and reports them. Only Reapply
// sees calls of iptables-legacy that take another lock than all others.
func TestReapplyCountsNetworks(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	rig.SetIptables(r.Host, "legacy")
	r.Write(rig.ConfigFile, "firewall_backend = iptables\n")
	r.StartDaemon()
	for i, name := range []string{"a", "b", "c"} {
		r.OK(r.AddXML(rig.Lasting(name, i+1, "nat")))
	}
	for damage, want := range map[string][]string{
		"-D LIBVIRT_FWX -i virbr2 -o virbr2 -j ACCEPT": {"b"},
		"-F LIBVIRT_FWO": {"a", "b", "c"},
		"-N STRAY":       nil,
	} {
		told := r.Repairs()
		awaitTrue(t, "the service has seen its own calls", func() bool { return r.Sleeps(300*time.Millisecond) == 0 })
		r.Must(append([]string{"env", "XTABLES_LOCKFILE=/run/other.lock", "iptables"}, strings.Fields(damage)...)...)
		if n := r.Reapply(); int(n) != len(want) {
			t.Errorf("%s: %d repairs, want %d", damage, n, len(want))
		}
		got := slices.Sorted(maps.Keys(told()))
		if !slices.Equal(got, want) {
			t.Errorf("%s: Repaired for %q, want %q", damage, got, want)
		}
		if n := r.Reapply(); n != 0 {
			t.Errorf("%s: another %d repairs", damage, n)
		}
	}
}

// TestOwnChangesAreNotForeign: the service does not look after its own changes,
// nor after those of other tables.
func TestOwnChangesAreNotForeign(t *testing.T) {
	t.Parallel()
	const look = "another program changed the table"
	r := rig.New(t)
	r.Write(rig.ConfigFile, "own_table = false\n")
	r.StartDaemon("--log-level", "debug")
	for i := range 20 {
		r.OK(r.AddXML(rig.Lasting(fmt.Sprint("net", i), i+1, "nat")))
		r.Must("nft", "add table inet other { chain c { type filter hook forward priority 5; }; }; delete table inet other")
	}
	if strings.Contains(r.Daemon.Log(), look) {
		t.Errorf("the service looked at its table after changes of its own and elsewhere:\n%s", r.Daemon.Log())
	}
	told := r.Repairs()
	r.Must("nft", "delete", "element", "inet", "libvirt_network", "guests_name", "{ virbr4 }")
	awaitRepairs(r, told, "net3")
	if !strings.Contains(r.Daemon.Log(), look) {
		t.Errorf("the log does not say %q:\n%s", look, r.Daemon.Log())
	}
}
