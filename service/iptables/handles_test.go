package iptables

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// countRestores makes each run of iptables' programs that change rules leave a line.
func (b *bed) countRestores() (count func() int) {
	for _, program := range []string{"iptables-restore", "ip6tables-restore"} {
		b.wrap(program, `case $1 in -V) ;; *) echo run >>/tmp/restores;; esac; exec $real "$@"`)
	}
	return func() int {
		runs, _ := b.ReadFile("/tmp/restores")
		return strings.Count(string(runs), "\n")
	}
}

// TestRemovalByHandle: the nft variant's rules are deleted without its programs, and
// what is left is what the programs leave.
func TestRemovalByHandle(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		b.libvirtsOwn()
		runs := b.countRestores()
		b.sync(nat(1), nat(2), nat(3))
		b.apply([]network.Network{nat(4)})
		before := runs()
		b.apply(nil, "net4")
		b.apply(nil, "net2", "net3")
		if ran := runs() > before; ran != (variant == "legacy") {
			t.Errorf("%d runs", runs()-before)
		}
		after := b.saved()
		if damaged := b.sync(nat(1)); damaged != nil {
			t.Errorf("damaged: %v", damaged)
		}
		b.same("compared", after)
		for _, gone := range []string{"virbr2", "virbr3", "virbr4"} {
			if strings.Contains(after, gone+" ") {
				t.Errorf("rules of %s:\n%s", gone, after)
			}
		}
	})
}

// TestHandlesOfOtherRules: other programs delete or replace the rules, so that their
// handles are nobody's or others'.
func TestHandlesOfOtherRules(t *testing.T) {
	damage := map[string]string{
		"one rule deleted":  "iptables -D LIBVIRT_FWI -o virbr2 -j REJECT",
		"one rule replaced": "iptables -D LIBVIRT_FWI -o virbr2 -j REJECT; iptables -I LIBVIRT_FWI -o virbr2 -j REJECT",
		"a table flushed":   "ip6tables -F",
		// Handles begin at 1 again.
		"a table made again": "iptables-save -t filter >/tmp/f; nft delete table ip filter; for i in 1 2 3 4 5 6 7; do iptables -A INPUT -i o$i -j DROP; done; iptables-restore --noflush </tmp/f",
		"all tables deleted": "nft flush ruleset; for i in 1 2 3 4 5 6 7 8 9; do iptables -A FORWARD -i o$i -j DROP; iptables -t nat -A POSTROUTING -o o$i -j RETURN; done",
	}
	for name, commands := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, "nft", Config{Log: quiet()})
			b.others()
			b.apply([]network.Network{nat(1), nat(2)})
			b.Must("sh", "-c", commands)
			before := b.saved()
			b.apply(nil, "net2")
			for line := range strings.SplitSeq(before, "\n") {
				others := !strings.Contains(line, "virbr") && !strings.Contains(line, "LIBVIRT") && !strings.Contains(line, " 10.0.") && !strings.Contains(line, " fd00:")
				if others && !strings.Contains(b.saved(), line) {
					t.Errorf("another program's rule is gone: %s", line)
				}
			}
			if damaged := b.sync(nat(1)); damaged != nil && !strings.Contains(name, "table") {
				t.Errorf("damaged: %v", damaged)
			}
			if after := b.saved(); strings.Contains(after, "virbr2 ") || !strings.Contains(after, "virbr1 -j REJECT") {
				t.Errorf("after:\n%s", after)
			}
		})
	}
}
