package backends

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestTheTableAsItIs: if the service does not own its table, another program's
// change is undone, reported, and shown until then; with packets before and
// after, in both families.
func TestTheTableAsItIs(t *testing.T) {
	t.Parallel()
	const table = "inet libvirt_network"
	r := rig.New(t)
	r.Write(rig.ConfigFile, "own_table = false\n")
	r.StartDaemon()
	r.Bridge("virbr0", rig.NatNet, "2001:db8:122::1/64")
	r.OK(r.AddXML(rig.NatXML("<nat ipv6='yes'/>")))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
	both := func(when string) {
		t.Helper()
		rig.Natted(t, guest, internet, when)
		rig.Guarded(t, guest, internet, when)
		if seen := rig.SeenFrom(t, guest, internet, host.UDP, rig.Internet6, ""); seen.Addr() != netip.MustParseAddr("2001:db8:ffff::2") {
			t.Errorf("%s: the server saw %v", when, seen)
		}
	}
	both("before")
	whole := rig.Uncounted(rig.TableLines(r.Host))
	for _, damage := range []string{
		"add table " + table + " { flags dormant; }",
		"add chain " + table + " evil { type filter hook forward priority -5; policy drop; }",
		"add chain " + table + " forward_guests { type filter hook forward priority filter - 1; policy drop; }",
		"add element " + table + " to_id { * : accept }",
		"insert rule " + table + " destination_id accept",
		"add quota " + table + " q { 1 bytes; }; add rule " + table + " forward_guests quota name q drop",
	} {
		for _, down := range []bool{false, true} {
			told := r.Repairs()
			if down {
				r.StopDaemon()
			}
			r.Must("nft", damage)
			if down {
				r.StartDaemon()
			} else {
				awaitRepairs(r, told, "default")
			}
			when := fmt.Sprintf("%s, service down: %v", damage, down)
			both(when)
			if diff := cmp.Diff(whole, rig.Uncounted(rig.TableLines(r.Host))); diff != "" {
				t.Errorf("%s: the table is not as it was (-before +after):\n%s", when, diff)
			}
			if n := r.Reapply(); n != 0 {
				t.Errorf("%s: %d repairs after it was mended", when, n)
			}
		}
	}
}

// TestATableOfSomebodyElse cannot be changed while its owner lives: the network
// is not in force and reports it, also after a start, and is in force when the
// owner ends.
func TestATableOfSomebodyElse(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Write(rig.ConfigFile, "own_table = false\n")
	r.Announce("mending after a failure", "putting the networks in force", "putting rules back")
	r.StartDaemon()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "Persistent", true))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	rig.Natted(t, guest, internet, "before")
	for _, down := range []bool{false, true} {
		if down {
			r.StopDaemon()
		}
		usurper := usurp(r, t)
		if down {
			r.StartDaemon()
		}
		r.Until("the network is not in force", func() bool { state, _ := r.State("default"); return state == "failed" })
		if code := r.Property("default", "StateCode"); fmt.Sprint(code) != "table-foreign" {
			t.Errorf("StateCode is %v", code)
		}
		if _, reason := r.State("default"); !strings.Contains(reason, "table inet libvirt_network belongs to ") {
			t.Errorf("the reason is %q", reason)
		}
		rig.Must(t, usurper.CloseLasting())
		r.Until("the network is in force again", func() bool { state, _ := r.State("default"); return state == "active" })
		rig.Natted(t, guest, internet, "mended")
		rig.Guarded(t, guest, internet, "mended")
	}
}

// usurp puts a table of the service's name in its place, owned.
func usurp(r *rig.Rig, t *testing.T) *nftables.Conn {
	t.Helper()
	var c *nftables.Conn
	err := r.Do(func() (err error) {
		if c, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
		tab := &nftables.Table{Family: nftables.TableFamilyINet, Name: "libvirt_network"}
		c.AddTable(tab)
		c.DelTable(tab)
		c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "libvirt_network", Flags: nftables.TableFlagOwner})
		return c.Flush()
	})
	rig.Must(t, err)
	return c
}
