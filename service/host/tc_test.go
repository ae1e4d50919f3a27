package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	hosts "github.com/virtfirewalld/virtfirewalld/tests/host"
)

// mirrors are filters with another action in place of csum, one that more
// kernels have: what is tested with it is how filters come and go.
func mirrors() *csumFilters {
	c := newCsumFilters()
	c.action = mirrored(netlink.TCA_EGRESS_MIRROR)
	return c
}

// mirrored sends a copy to the loopback device (struct tc_mirred).
func mirrored(direction netlink.MirredAct) action {
	const loopback = 1
	own := binary.NativeEndian.AppendUint32(nil, uint32(direction))
	return action{
		kind: "mirred", parms: nl.TCA_MIRRED_PARMS, control: int32(netlink.TC_ACT_PIPE),
		own: binary.NativeEndian.AppendUint32(own, loopback),
	}
}

// bridged makes a host with bridges virbr0 and virbr1.
func bridged(t *testing.T) *hosts.Host {
	t.Helper()
	h := hosts.New(t)
	h.Bridge("virbr0", "192.168.122.1/24")
	h.Bridge("virbr1", "192.168.123.1/24")
	return h
}

// help fills and returns the bridges that were left.
func help(t *testing.T, h *hosts.Host, c *csumFilters, bridges ...string) (left map[string]string) {
	t.Helper()
	return fillAll(t, h, c, false, bridges...)
}

// helpStarting is the same while libvirt may be starting the networks.
func helpStarting(t *testing.T, h *hosts.Host, c *csumFilters, bridges ...string) {
	t.Helper()
	if left := fillAll(t, h, c, true, bridges...); len(left) != 0 {
		t.Error("without help: ", left)
	}
}

func fillAll(t *testing.T, h *hosts.Host, c *csumFilters, starting bool, bridges ...string) (left map[string]string) {
	t.Helper()
	want := make(map[string]DHCP)
	for _, b := range bridges {
		want[b] = DHCP{Network: "network of " + b, Starting: starting}
	}
	err := h.Do(func() (err error) {
		left, err = c.fill(context.Background(), want)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// changing matches what differs between outputs of tc: the number of an action, and
// packets counted.
var changing = regexp.MustCompile("(index|direct_packets_stat) [0-9]+")

// control returns all that tc shows of a bridge, without that.
func control(h *hosts.Host, bridge string) string {
	var all strings.Builder
	for _, what := range []string{"qdisc show", "class show", "filter show", "filter show egress", "filter show ingress"} {
		kind, how, _ := strings.Cut(what, " show")
		all.WriteString(h.Must("sh", "-c", "tc "+kind+" show dev "+bridge+how+" 2>&1"))
	}
	return changing.ReplaceAllString(all.String(), "$1 N")
}

func tc(h *hosts.Host, line string, args ...any) {
	h.Must(append([]string{"tc"}, strings.Fields(fmt.Sprintf(line, args...))...)...)
}

func same(t *testing.T, when, want, got string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-before +after):\n%s", when, diff)
	}
}

// TestFiltersComeAndGo before the bridge's queue, and in it while libvirt may be
// starting the network.
func TestFiltersComeAndGo(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]struct {
		starting bool
		parts    []string
		damage   []string
	}{
		"before the queue": {false, []string{"qdisc clsact ffff: parent ffff:fff1", "filter protocol ip pref 2 u32"},
			[]string{"qdisc del dev virbr0 clsact", "filter del dev virbr0 egress prio 2"}},
		"in the queue": {true, []string{"qdisc htb 1: root", "default 0x2", "filter parent 1: protocol ip pref 2 u32"},
			[]string{"qdisc del dev virbr0 root", "filter del dev virbr0 parent 1: prio 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := bridged(t)
			before := control(h, "virbr0")
			c := mirrors()
			if left := fillAll(t, h, c, place.starting, "virbr0", "virbr1", "gone0"); len(left) != 0 {
				t.Error("without help: ", left)
			}
			with := control(h, "virbr0")
			for _, part := range append(place.parts, "fh 800::7dc", "match 00000044/0000ffff at 20") {
				if !strings.Contains(with, part) {
					t.Errorf("tc does not show %q:\n%s", part, with)
				}
			}
			fillAll(t, h, c, place.starting, "virbr0", "virbr1")
			same(t, "nothing to do", with, control(h, "virbr0"))
			for _, damage := range place.damage {
				tc(h, "%s", damage)
				fillAll(t, h, c, place.starting, "virbr0", "virbr1")
				same(t, damage, with, control(h, "virbr0"))
			}
			fillAll(t, h, mirrors(), place.starting, "virbr1") // as after a restart of the service
			same(t, "the first bridge is not wanted", before, control(h, "virbr0"))
			if got := control(h, "virbr1"); !strings.Contains(got, "fh 800::7dc") {
				t.Error("the second bridge lost its filter:\n", got)
			}
			help(t, h, mirrors())
			same(t, "no bridge is wanted", before, strings.ReplaceAll(control(h, "virbr1"), "virbr1", "virbr0"))
		})
	}
}

// TestFilterMovesBeforeTheQueue when libvirt has started the network, and when an
// earlier version of the service had put it into the queue. It then stays there.
func TestFilterMovesBeforeTheQueue(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	helpStarting(t, h, mirrors(), "virbr0")
	help(t, h, mirrors(), "virbr0")
	got := control(h, "virbr0")
	if strings.Contains(got, "htb") || !strings.Contains(got, "clsact") || strings.Count(got, "800::7dc") != 1 {
		t.Error("want one filter, before the queue:\n", got)
	}
	helpStarting(t, h, mirrors(), "virbr0")
	same(t, "libvirt starts again", got, control(h, "virbr0"))
}

// TestLibvirtHasPlaceForBandwidth while it starts a network, whose start it gives
// up otherwise, and what it sets up there stays.
func TestLibvirtHasPlaceForBandwidth(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	helpStarting(t, h, mirrors(), "virbr0")
	tc(h, "qdisc del dev virbr0 root") // as libvirt does first
	tc(h, "qdisc add dev virbr0 ingress")
	bandwidth(h)
	before := control(h, "virbr0")
	help(t, h, mirrors(), "virbr0")
	if got := control(h, "virbr0"); strings.Count(got, "800::7dc") != 1 || strings.Contains(got, "clsact") {
		t.Error("want one filter, in the queue:\n", got)
	}
	help(t, h, mirrors())
	same(t, "ours is gone again", before, control(h, "virbr0"))
}

// TestClsactOfSomebodyElseStays, with its filters, or with none.
func TestClsactOfSomebodyElseStays(t *testing.T) {
	t.Parallel()
	for name, theirs := range map[string]string{
		"empty": "qdisc show dev virbr0",
		"used":  "filter add dev virbr0 egress protocol ip prio 1 u32 match ip dport 9 ffff action mirred egress mirror dev lo",
	} {
		t.Run(name, func(t *testing.T) {
			h := bridged(t)
			tc(h, "qdisc add dev virbr0 clsact")
			tc(h, "%s", theirs)
			before := control(h, "virbr0")
			help(t, h, mirrors(), "virbr0")
			if got := control(h, "virbr0"); !strings.Contains(got, "::7dd") {
				t.Error("no filter of ours:\n", got)
			}
			help(t, h, mirrors())
			same(t, "after help came and went", before, control(h, "virbr0"))
		})
	}
}

// TestClsactStaysWhileSomebodyUsesIt after us.
func TestClsactStaysWhileSomebodyUsesIt(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	help(t, h, mirrors(), "virbr0")
	tc(h, "filter add dev virbr0 ingress protocol ip prio 1 u32 match ip dport 9 ffff action mirred egress mirror dev lo")
	help(t, h, mirrors())
	if got := control(h, "virbr0"); !strings.Contains(got, "clsact") || strings.Contains(got, "800::7dc") {
		t.Error("want the qdisc without our filter:\n", got)
	}
}

// bandwidth is what libvirt sets up for <bandwidth> with a floor, and a filter
// such as its own for checksums.
func bandwidth(h *hosts.Host) {
	tc(h, "qdisc add dev virbr0 root handle 1: htb default 2")
	tc(h, "class add dev virbr0 parent 1: classid 1:1 htb rate 8mbit")
	tc(h, "class add dev virbr0 parent 1:1 classid 1:2 htb rate 8kbit ceil 8mbit")
	tc(h, "filter add dev virbr0 protocol ip prio 2 handle 800::3 u32 match ip dst 192.168.122.9/32 flowid 1:2")
	tc(h, "filter add dev virbr0 protocol ip prio 2 parent 1: u32 match ip dport 68 ffff action mirred egress mirror dev lo")
	tc(h, "filter add dev virbr0 protocol all prio 1 parent 1: u32 match u32 0 0 flowid 1:1")
}

func TestBandwidthSettingsStay(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	bandwidth(h)
	before := control(h, "virbr0")
	helpStarting(t, h, mirrors(), "virbr0")
	with := control(h, "virbr0")
	if n := strings.Count(with, "800::7dc"); n != 1 {
		t.Errorf("our filter is there %d times:\n%s", n, with)
	}
	for line := range strings.Lines(before) {
		if !strings.Contains(with, line) {
			t.Errorf("this is gone: %s", line)
		}
	}
	help(t, h, mirrors())
	same(t, "ours is gone again", before, control(h, "virbr0"))
}

func TestQdiscStaysWhileSomebodyUsesIt(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]string{
		"class":  "class add dev virbr0 parent 1: classid 1:1 htb rate 8mbit",
		"filter": "filter add dev virbr0 protocol ip prio 2 parent 1: u32 match ip dport 68 ffff action mirred egress mirror dev lo",
	} {
		t.Run(name, func(t *testing.T) {
			h := bridged(t)
			helpStarting(t, h, mirrors(), "virbr0")
			tc(h, "%s", use)
			help(t, h, mirrors())
			got := control(h, "virbr0")
			if !strings.Contains(got, "htb 1:") || strings.Contains(got, "800::7dc") {
				t.Error("want the qdisc without our filter:\n", got)
			}
			tc(h, "%s", strings.Replace(use, " add ", " del ", 1))
			help(t, h, mirrors())
			if got := control(h, "virbr0"); strings.Contains(got, "htb") {
				t.Error("nobody uses it now:\n", got)
			}
		})
	}
}

func TestEmptyQdiscOfSomebodyElseStays(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	tc(h, "qdisc add dev virbr0 root handle 1: htb default 2")
	before := control(h, "virbr0")
	helpStarting(t, h, mirrors(), "virbr0")
	help(t, h, mirrors())
	same(t, "after help came and went", before, control(h, "virbr0"))
}

func TestOtherRootQdiscIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, qdisc := range []string{"handle 5: pfifo", "handle 7: htb default 1"} {
		t.Run(qdisc, func(t *testing.T) {
			h := bridged(t)
			tc(h, "qdisc add dev virbr0 root %s", qdisc)
			before := control(h, "virbr0")
			left := fillAll(t, h, mirrors(), true, "virbr0", "virbr1")
			if diff := cmp.Diff(map[string]string{"virbr0": "network of virbr0"}, left); diff != "" {
				t.Error("without help (-want +got):\n", diff)
			}
			same(t, "its qdisc", before, control(h, "virbr0"))
		})
	}
}

func TestFilterThatCannotBeMadeLeavesNoQdisc(t *testing.T) {
	t.Parallel()
	for name, starting := range map[string]bool{"before the queue": false, "in the queue": true} {
		t.Run(name, func(t *testing.T) {
			h := bridged(t)
			before := control(h, "virbr0")
			c := mirrors()
			c.probed, c.works = true, true
			c.action = mirrored(99) // no such direction
			err := h.Do(func() error {
				_, err := c.fill(context.Background(), map[string]DHCP{"virbr0": {Network: "default", Starting: starting}})
				return err
			})
			if err == nil {
				t.Error("no error")
			}
			same(t, "after the failure", before, control(h, "virbr0"))
		})
	}
}

// Whether this kernel has the action is not tested; that probing leaves nothing
// behind is.
func TestProbe(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	before := control(h, "virbr0")
	for name, c := range map[string]*csumFilters{"csum": newCsumFilters(), "mirred": mirrors()} {
		var works bool
		err := h.Do(func() (err error) {
			works, err = c.probe()
			return err
		})
		t.Logf("tc action %s works: %v", name, works)
		if err != nil || !c.probed {
			t.Errorf("probing %s: %v", name, err)
		}
		if out, _ := h.Run("tc", "actions", "list", "action", name); strings.Contains(out, "index") {
			t.Errorf("the action %s that was tried is still there:\n%s", name, out)
		}
		if name == "mirred" && !works {
			t.Error("mirred works not")
		}
	}
	same(t, "after probing", before, control(h, "virbr0"))
}

// TestActionsHaveTheKernelsSize compares with the headers' structs: bytes beyond
// them would leak memory.
func TestActionsHaveTheKernelsSize(t *testing.T) {
	t.Parallel()
	for want, a := range map[int]action{24: csum(), 28: mirrored(netlink.TCA_EGRESS_MIRROR)} {
		top := nl.NewRtAttr(nl.TCA_ACT_TAB, nil)
		a.encode(top, 7)
		for kind, value := range nfnl.All(top.Serialize()[unix.SizeofRtAttr:]) {
			if kind != nl.TCA_ACT_OPTIONS {
				continue
			}
			for kind, parms := range nfnl.All(value) {
				if int(kind) != a.parms || len(parms) != want {
					t.Errorf("%s: attribute %d has %d bytes, want %d", a.kind, kind, len(parms), want)
				}
			}
		}
	}
}

// TestBridgeMadeAnewIsLeftAlone until it was looked at: libvirt may be starting a
// network on it.
func TestBridgeMadeAnewIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := bridged(t)
	before := control(h, "virbr0")
	err := h.Do(func() error {
		_, err := mirrors().fill(context.Background(), map[string]DHCP{"virbr0": {Network: "default", Index: 1 << 20}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "another bridge of the name", before, control(h, "virbr0"))
}
