package tests

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// TestTheTableAsItIs: what another program does to the table of a service that
// does not own it is undone, told, and shown until then; with packets before
// and after, in both families.
func TestTheTableAsItIs(t *testing.T) {
	t.Parallel()
	const table = "inet libvirt_network"
	r := newRig(t)
	r.write(configFile, "own_table = false\n")
	r.StartDaemon()
	r.Bridge("virbr0", natNet, "2001:db8:122::1/64")
	r.must(r.AddXML(nat("<nat ipv6='yes'/>")))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
	both := func(when string) {
		t.Helper()
		natted(t, guest, internet, when)
		guarded(t, guest, internet, when)
		if seen := seenFrom(t, guest, internet, host.UDP, internet6, ""); seen.Addr() != netip.MustParseAddr("2001:db8:ffff::2") {
			t.Errorf("%s: the server saw %v", when, seen)
		}
	}
	both("before")
	whole := uncounted(tableLines(r.Host))
	for _, damage := range []string{
		"add table " + table + " { flags dormant; }",
		"add chain " + table + " evil { type filter hook forward priority -5; policy drop; }",
		"add chain " + table + " to_guests { type filter hook forward priority filter + 1; policy drop; }",
		"add element " + table + " to_id { * : accept }",
		"insert rule " + table + " net_default_to accept",
		"add quota " + table + " q { 1 bytes; }; add rule " + table + " from_guests quota name q drop",
	} {
		for _, down := range []bool{false, true} {
			told := r.repairs()
			if down {
				r.StopDaemon()
			}
			r.Must("nft", damage)
			if down {
				r.StartDaemon()
			} else {
				r.awaitRepairs(told, "default")
			}
			when := fmt.Sprintf("%s, service down: %v", damage, down)
			both(when)
			if diff := cmp.Diff(whole, uncounted(tableLines(r.Host))); diff != "" {
				t.Errorf("%s: the table is not as it was (-before +after):\n%s", when, diff)
			}
			if n := r.reapply(); n != 0 {
				t.Errorf("%s: %d repairs after it was mended", when, n)
			}
		}
	}
}

// TestATableOfSomebodyElse cannot be changed while its owner lives: the network
// is not in force and says so, also after a start, and is when the owner ends.
func TestATableOfSomebodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(configFile, "own_table = false\n")
	r.Announce("mending after a failure", "putting the networks in force", "putting rules back")
	r.StartDaemon()
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet), "Persistent", true))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	natted(t, guest, internet, "before")
	for _, down := range []bool{false, true} {
		if down {
			r.StopDaemon()
		}
		usurper := r.usurp(t)
		if down {
			r.StartDaemon()
		}
		r.until("the network is not in force", func() bool { state, _ := r.State("default"); return state == "failed" })
		if code := r.Property("default", "StateCode"); fmt.Sprint(code) != "table-foreign" {
			t.Errorf("StateCode is %v", code)
		}
		if _, reason := r.State("default"); !strings.Contains(reason, "table inet libvirt_network belongs to ") {
			t.Errorf("the reason is %q", reason)
		}
		if err := usurper.CloseLasting(); err != nil {
			t.Fatal(err)
		}
		r.until("the network is in force again", func() bool { state, _ := r.State("default"); return state == "active" })
		natted(t, guest, internet, "mended")
		guarded(t, guest, internet, "mended")
	}
}

// usurp puts a table of the service's name in its place, owned.
func (r *rig) usurp(t *testing.T) *nftables.Conn {
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
	if err != nil {
		t.Fatal(err)
	}
	return c
}
