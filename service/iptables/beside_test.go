package iptables

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// peer does by hand what libvirt does with a network, step by step.
type peer struct {
	*bed
	running bool
}

func newPeer(t *testing.T, variant string) *peer {
	p := &peer{}
	driver := libvirt.New(libvirt.RunDir)
	state := func() libvirt.State {
		st := driver.State()
		st.Running = p.running
		return st
	}
	p.bed = newBed(t, variant, Config{Record: "/run/virtfirewalld/iptables", Libvirt: state})
	return p
}

func command(ipv6 bool) string { return xtables.Name(ipv6, xtables.VariantNone) }

func (p *peer) run(ipv6 bool, verb string, r Rule) {
	args := []string{command(ipv6), "-w", "-t", r.Table, verb, r.Name}
	p.Must(append(args, strings.Fields(r.spec())...)...)
}

// chains makes libvirt's chains, where they are missing.
func (p *peer) chains() {
	for _, ipv6 := range []bool{false, true} {
		for _, h := range slices.Backward(hooks[:]) {
			c := h.of(ipv6)
			if _, err := p.Run(command(ipv6), "-w", "-t", c.Table, "-N", c.Name); err == nil {
				p.run(ipv6, "-I", h.jump(ipv6))
			}
		}
	}
}

// rules puts libvirt's rules in, each above the one before.
func (p *peer) rules(n network.Network) {
	for _, r := range slices.Backward(Compile(n)) {
		p.run(r.IPv6, "-I", r)
	}
}

func (p *peer) document(n network.Network) {
	p.t.Helper()
	n.UUID = "e49d1a34-7f6b-4a6e-9d4e-2f5c8b1c6a10"
	definition, err := n.XML()
	if err != nil {
		p.t.Fatal(err)
	}
	text := fmt.Sprintf("<networkstatus>%s</networkstatus>", definition)
	if err := p.WriteFile(filepath.Join(libvirt.RunDir, n.Name+".xml"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) starts(n network.Network) {
	p.t.Helper()
	p.running = true
	p.chains()
	p.rules(n)
	p.document(n)
}

// forgets and deletes are the two steps of libvirt's stop.
func (p *peer) forgets(n network.Network) {
	p.Must("rm", filepath.Join(libvirt.RunDir, n.Name+".xml"))
}

func (p *peer) deletes(n network.Network) {
	for _, r := range Compile(n) {
		p.run(r.IPv6, "-D", r)
	}
}

// part returns the saved lines that name chains of a prefix, without the order of
// jumps.
func part(saved, prefix string) string {
	var lines []string
	for line := range strings.Lines(saved) {
		if strings.Contains(line, prefix) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (p *peer) has(what, prefix, want string) {
	p.t.Helper()
	if diff := cmp.Diff(part(want, prefix), part(p.saved(), prefix)); diff != "" {
		p.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// alone returns what libvirt's chains hold for networks on a host without us.
func alone(t *testing.T, variant string, nets ...network.Network) string {
	p := newPeer(t, variant)
	for _, n := range nets {
		p.starts(n)
	}
	return p.saved()
}

// TestBesideLibvirt: a network that libvirt has is governed by chains beside
// libvirt's, which stay as they are to the byte.
func TestBesideLibvirt(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		p := newPeer(t, variant)
		one, other := nat(1), nat(2)
		p.starts(one)
		p.starts(other)
		before := p.saved()
		p.apply([]network.Network{one})
		p.has("one of libvirt's is governed", libvirtPrefix, before)
		if got := strings.Count(p.saved(), "-A "+besidePrefix); got != len(Compile(one)) {
			t.Errorf("%d rules of ours are in the kernel:\n%s", got, p.saved())
		}
		p.Must("iptables", "-F", "LIBVIRT_FWO")
		if damaged := p.sync(one); len(damaged) > 0 {
			t.Errorf("libvirt's rules are looked after: %v", damaged)
		}
		if rules := p.Must("iptables", "-S", "LIBVIRT_FWO"); strings.Contains(rules, "-A") {
			t.Errorf("libvirt's rules were put back:\n%s", rules)
		}
		p.Must("iptables", "-F", "VIRTFW_FWO")
		if damaged := p.sync(one); !slices.Equal(damaged, []string{"net1"}) {
			t.Errorf("damaged: %v", damaged)
		}
		p.open(p.config)
		if damaged := p.sync(one); len(damaged) > 0 {
			t.Errorf("after a restart: %v", damaged)
		}
		p.apply(nil, "net1")
		if strings.Contains(p.saved(), besidePrefix) {
			t.Errorf("left behind:\n%s", p.saved())
		}
	})
}

// TestLibvirtComesAndGoes: it starts a network that is governed already, and
// stops it again. Its rules are there once, ours all the time.
func TestLibvirtComesAndGoes(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		p := newPeer(t, variant)
		one, two := nat(1), nat(2)
		ours := func() { // without libvirt
			t.Helper()
			if got := strings.Count(p.saved(), "-A VIRTFW_") + strings.Count(p.saved(), "-A LIBVIRT_"); got != 2*len(Compile(one)) {
				t.Errorf("%d rules of ours are in the kernel:\n%s", got, p.saved())
			}
		}
		p.apply([]network.Network{one, two})
		ours()
		p.Bridge("virbr1")
		p.running = true
		p.rules(one)
		if damaged := p.sync(one, two); len(damaged) > 0 {
			t.Errorf("while libvirt starts it there is damage: %v", damaged)
		}
		p.document(one)
		if damaged := p.sync(one, two); len(damaged) > 0 {
			t.Errorf("handed over: %v", damaged)
		}
		p.has("libvirt has one", libvirtPrefix, alone(t, variant, one, two))
		p.forgets(one)
		if damaged := p.sync(one, two); len(damaged) > 0 {
			t.Errorf("stopping: %v", damaged)
		}
		p.has("libvirt is stopping one", libvirtPrefix, alone(t, variant, one, two))
		p.deletes(one)
		p.Must("ip", "link", "delete", "virbr1")
		if damaged := p.sync(one, two); len(damaged) > 0 {
			t.Errorf("stopped: %v", damaged)
		}
		ours()
		if strings.Contains(p.saved(), besidePrefix) {
			t.Errorf("left behind:\n%s", p.saved())
		}
		p.apply(nil, "net1", "net2")
		if !strings.Contains(p.saved(), libvirtPrefix) {
			t.Error("libvirt's chains went while it runs")
		}
		p.running = false
		p.apply([]network.Network{one})
		p.apply(nil, "net1")
		if strings.Contains(p.saved(), libvirtPrefix) {
			t.Errorf("libvirt's chains are left behind:\n%s", p.saved())
		}
	})
}

// TestLibvirtKeepsWhatWasTakenOver: what an older version took over from libvirt is left to it.
func TestLibvirtKeepsWhatWasTakenOver(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		p := newPeer(t, variant)
		one := nat(1)
		p.starts(one)
		before := p.saved()
		p.forgets(one)
		p.running = false
		if damaged := p.sync(one); len(damaged) > 0 {
			t.Errorf("taken over: %v", damaged)
		}
		p.has("taken over", libvirtPrefix, before)
		p.document(one)
		p.sync(one)
		p.has("given back", libvirtPrefix, before)
		p.apply(nil, "net1")
		p.same("removed", before)
	})
}

// TestJumpsAreInterleaved: no chain of ours accepts what one of libvirt's refuses
// to let into another network, in whatever order jumps come.
func TestJumpsAreInterleaved(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		p := newPeer(t, variant)
		one, two := nat(1), nat(2)
		jumps := func() string {
			var targets []string
			for line := range strings.Lines(p.Must("iptables", "-S", "FORWARD")) {
				if _, target, ok := strings.Cut(strings.TrimSpace(line), "-j "); ok {
					targets = append(targets, target)
				}
			}
			return strings.Join(targets, " ")
		}
		const good = "VIRTFW_FWX VIRTFW_FWI LIBVIRT_FWX LIBVIRT_FWI VIRTFW_FWO LIBVIRT_FWO"
		p.starts(one)
		p.apply([]network.Network{one})
		if got := jumps(); got != good {
			t.Errorf("beside libvirt alone: %s", got)
		}
		p.apply([]network.Network{two})
		if got := jumps(); got != good {
			t.Errorf("with a network of ours: %s", got)
		}
		p.apply(nil, "net2")
		for _, chain := range []string{"LIBVIRT_FWO", "LIBVIRT_FWI", "LIBVIRT_FWX"} {
			p.Must("iptables", "-D", "FORWARD", "-j", chain)
			p.Must("iptables", "-I", "FORWARD", "-j", chain)
		}
		if damaged := p.sync(one); len(damaged) != 1 {
			t.Errorf("libvirt's jumps above ours: %v", damaged)
		}
		if got := jumps(); got != good {
			t.Errorf("with libvirt's jumps put in again: %s", got)
		}
		p.Must("iptables", "-D", "FORWARD", "-j", "VIRTFW_FWO")
		p.Must("iptables", "-I", "FORWARD", "-j", "VIRTFW_FWO")
		p.sync(one)
		if got := jumps(); got != good {
			t.Errorf("with ours moved to the head: %s", got)
		}
		p.Must("iptables", "-D", "FORWARD", "-j", "LIBVIRT_FWX")
		p.Must("iptables", "-D", "FORWARD", "-j", "LIBVIRT_FWI")
		if damaged := p.sync(one); len(damaged) > 0 {
			t.Errorf("without two of libvirt's jumps: %v, %s", damaged, jumps())
		}
	})
}
