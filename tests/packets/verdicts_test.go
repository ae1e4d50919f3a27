// Package packets holds the tests of what passes between guests, host and outside.
package packets

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestVerdictsAreLibvirts compares what passes between all kinds of networks
// with what passes under libvirt's own rules (nftables backend, 11.3). Only the
// deliberate differences may differ, and each must be seen to.
func TestVerdictsAreLibvirts(t *testing.T) {
	t.Parallel()
	var ours, libvirts map[string]string
	t.Run("both", func(t *testing.T) {
		t.Run("ours", func(t *testing.T) {
			t.Parallel()
			r := rig.Started(t)
			nodes := rig.BuildVillage(r.Host)
			for _, v := range rig.Village {
				r.OK(r.AddXML(v.XML))
			}
			ours = rig.Matrix(t, nodes)
			rig.GoldenLines(t, "testdata/verdicts.golden", ours)
		})
		t.Run("libvirt", func(t *testing.T) {
			t.Parallel()
			h := host.New(t, host.WithForwarding())
			nodes := rig.BuildVillage(h)
			if out, err := h.RunInput(rig.LibvirtRules(), "nft", "-f", "-"); err != nil {
				t.Fatalf("loading libvirt's rules: %v\n%s", err, out)
			}
			libvirts = rig.Matrix(t, nodes)
		})
	})
	differences := 0
	for line, fate := range ours {
		why := deliberate(line)
		switch {
		case fate == libvirts[line] && why != "":
			t.Errorf("%s: %s, as with libvirt, and should differ: %s", line, fate, why)
		case fate != libvirts[line] && why == "":
			t.Errorf("%s: %s, but %s with libvirt's rules", line, fate, libvirts[line])
		case fate != libvirts[line]:
			differences++
			if fate != "refused" {
				t.Errorf("%s: %s though %s", line, fate, why)
			}
		}
	}
	t.Logf("%d pairs, %d deliberate differences", len(ours), differences)
}

// deliberate returns why a pair differs from libvirt: D1, the one way out of an
// isolated or device-bound network into a routed one.
func deliberate(line string) string {
	from, to, _ := strings.Cut(line, " -> ")
	from = strings.TrimSpace(from)
	to, family, _ := strings.Cut(strings.TrimSpace(to), " ")
	// libvirt has no rules for open networks, so nothing there lets a packet in.
	bound := from == "isolated" || from == "nat-wan" || from == "route-wan"
	routed := to == "route" || (to == "nat-v6-routed" && strings.TrimSpace(family) == "IPv6")
	if bound && routed {
		return "D1: both ends decide"
	}
	return ""
}
