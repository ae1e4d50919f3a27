package iptables

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// variants are the two iptables that a host may have as "iptables".
var variants = []string{"nft", "legacy"}

// bed is a host with one variant of iptables and a backend on it.
type bed struct {
	*host.Host
	*Backend
	t testing.TB
}

func newBed(t testing.TB, variant string, cfg Config) *bed {
	t.Helper()
	h := host.New(t)
	for _, name := range []string{"iptables", "ip6tables"} {
		h.Must("update-alternatives", "--set", name, "/usr/sbin/"+name+"-"+variant)
	}
	b := &bed{Host: h, t: t}
	b.open(cfg)
	return b
}

// open replaces the backend, as after a restart.
func (b *bed) open(cfg Config) {
	b.t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(failing{b.t}, nil))
	}
	if err := b.Inside(func() (err error) {
		b.Backend, err = Open(cfg)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
}

// failing fails the test at every log line.
type failing struct{ t testing.TB }

func (f failing) Write(line []byte) (int, error) {
	f.t.Errorf("logged: %s", line)
	return len(line), nil
}

// try applies a change.
func (b *bed) try(set []network.Network, remove ...string) error {
	return b.Inside(func() error {
		return b.Apply(context.Background(), backend.Change{Set: members(set...), Remove: remove})
	})
}

// members returns networks whose bridges have the names in their definitions.
func members(nets ...network.Network) (all []backend.Member) {
	for _, n := range nets {
		all = append(all, backend.Member{Network: n, Iface: n.Bridge})
	}
	return all
}

func (b *bed) apply(set []network.Network, remove ...string) {
	b.t.Helper()
	if err := b.try(set, remove...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) sync(nets ...network.Network) (damaged []string) {
	b.t.Helper()
	err := b.Inside(func() (err error) {
		damaged, err = b.Sync(context.Background(), members(nets...))
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return damaged
}

// saved returns all rules, each line with its program and table in front, without
// what changes by itself.
func (b *bed) saved() string {
	b.t.Helper()
	var kept []string
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		table := ""
		for line := range strings.Lines(b.Must(program)) {
			line = strings.TrimSpace(line)
			switch line[0] {
			case '#':
				continue
			case '*':
				table = line
			case ':':
				line, _, _ = strings.Cut(line, " [")
			}
			kept = append(kept, program+" "+table+" "+line)
		}
	}
	// The tables come in the order in which they were made.
	slices.SortStableFunc(kept, func(a, b string) int {
		return strings.Compare(strings.Join(strings.Fields(a)[:2], " "), strings.Join(strings.Fields(b)[:2], " "))
	})
	return strings.Join(kept, "\n")
}

func (b *bed) same(what, before string) {
	b.t.Helper()
	if diff := cmp.Diff(before, b.saved()); diff != "" {
		b.t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

// nat returns a NAT network of both families.
func nat(i int) network.Network {
	return network.Network{
		Name: fmt.Sprintf("net%d", i), Bridge: fmt.Sprintf("virbr%d", i), Mode: network.ModeNAT, DHCP: true,
		Addresses: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00:%x::1/64", i+1)),
		},
		NATIPv6: true,
	}
}

// libvirtsOwn inserts what libvirt makes for a network that is not ours, and
// others' rules around it.
func (b *bed) libvirtsOwn() {
	b.t.Helper()
	other := nat(999)
	other.Bridge = "virbr-libvirt"
	v4, v6, _ := strings.Cut(Text(other), "# IPv6")
	for program, text := range map[string]string{"iptables-restore": v4, "ip6tables-restore": "#" + v6} {
		if out, err := b.RunInput(text, program, "--noflush"); err != nil {
			b.t.Fatal(out, err)
		}
	}
	b.others()
}

// others' rules are nobody's business.
func (b *bed) others() {
	for _, program := range []string{"iptables", "ip6tables"} {
		b.Must(program, "-N", "OTHERS")
		b.Must(program, "-A", "OTHERS", "-m", "comment", "--comment", `it's "theirs" \ $x`, "-j", "RETURN")
		b.Must(program, "-I", "FORWARD", "-j", "OTHERS")
		b.Must(program, "-A", "FORWARD", "-i", "virbr1", "-j", "ACCEPT")
		b.Must(program, "-t", "nat", "-I", "POSTROUTING", "-o", "docker0", "-j", "RETURN")
		b.Must(program, "-P", "FORWARD", "DROP")
	}
}

func each(t *testing.T, test func(t *testing.T, variant string)) {
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			test(t, variant)
		})
	}
}

func TestTextIsWhatApplyMakes(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		a, b := newBed(t, variant, Config{}), newBed(t, variant, Config{})
		nets := []network.Network{nat(1), nat(2), nat(3)}
		a.apply(nets[:1])
		a.apply(nets[1:])
		v4, v6, _ := strings.Cut(Text(nets...), "# IPv6")
		for program, text := range map[string]string{"iptables-restore": v4, "ip6tables-restore": "#" + v6} {
			if out, err := b.RunInput(text, program, "--noflush"); err != nil {
				t.Fatal(out, err)
			}
		}
		a.same("applied and restored", b.saved())
		var held string
		if err := a.Inside(func() (err error) {
			held, err = a.Text(context.Background(), "net2")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		lines := func(text string) (rules []string) {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "-A ") {
					rules = append(rules, line)
				}
			}
			return rules
		}
		if diff := cmp.Diff(lines(Text(nets[1])), lines(held)); diff != "" {
			t.Error("what the kernel holds of one (-want +got):\n", diff)
		}
	})
}

func TestOthersRulesStay(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		b.libvirtsOwn()
		before := b.saved()
		b.apply([]network.Network{nat(1)})
		b.apply([]network.Network{nat(2)})
		changed := nat(1)
		changed.Mode, changed.NATIPv6 = network.ModeRoute, false
		b.apply([]network.Network{changed})
		b.apply(nil, "net2")
		if damaged := b.sync(changed); len(damaged) > 0 {
			t.Errorf("damaged: %v", damaged)
		}
		var ours []string
		for line := range strings.Lines(b.saved()) {
			if !strings.Contains(before, strings.TrimSpace(line)) {
				ours = append(ours, line)
			}
		}
		if got, want := len(ours), len(Compile(changed)); got != want {
			t.Errorf("%d rules beside those before, want %d:\n%s", got, want, strings.Join(ours, ""))
		}
		b.apply(nil, "net1")
		b.same("after the last network", before)
	})
}

func TestNothingIsLeft(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		b.others()
		before := b.saved()
		b.apply([]network.Network{nat(1), nat(2)})
		b.apply(nil, "net1", "net2")
		after := b.saved()
		for _, program := range []string{"iptables-save", "ip6tables-save"} {
			if strings.Contains(before, program+" *mangle") {
				t.Fatal("the test thinks that there is no mangle table before")
			}
			// A table that iptables made stays, empty, as it does after libvirt.
			after = keep(after, func(line string) bool { return !strings.HasPrefix(line, program+" *mangle") })
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error("(-before +after):\n", diff)
		}
	})
}

func keep(text string, ok func(line string) bool) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if ok(line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

func TestSyncRepairs(t *testing.T) {
	damage := map[string]struct {
		commands string
		want     []string // damaged
	}{
		"nothing":                {"true", nil},
		"a flush":                {"iptables -F; ip6tables -F", []string{"net1", "net2", "net3"}},
		"a flush and deletion":   {"iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X", []string{"net1", "net2", "net3"}},
		"one chain":              {"ip6tables -F LIBVIRT_FWO", []string{"net1", "net2", "net3"}},
		"one rule":               {"iptables -D LIBVIRT_FWI -o virbr2 -j REJECT", []string{"net2"}},
		"one rule twice":         {"iptables -A LIBVIRT_FWX -i virbr3 -o virbr3 -j ACCEPT", []string{"net3"}},
		"rules in another order": {"iptables -D LIBVIRT_FWO -i virbr2 -j REJECT; iptables -I LIBVIRT_FWO 3 -i virbr2 -j REJECT", []string{"net2"}},
		"a jump":                 {"ip6tables -t nat -D POSTROUTING -j LIBVIRT_PRT", []string{"net1", "net2", "net3"}},
		"jumps in another order": {"iptables -D FORWARD -j LIBVIRT_FWX; iptables -A FORWARD -j LIBVIRT_FWX", []string{"net1", "net2", "net3"}},
	}
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		nets := []network.Network{nat(1), nat(2), nat(3)}
		b.sync(nets...)
		want := b.saved()
		for name, d := range damage {
			b.Must("sh", "-c", d.commands)
			if b.saved() == want && d.want != nil {
				t.Errorf("%s: no damage done", name)
			}
			if diff := cmp.Diff(d.want, b.sync(nets...)); diff != "" {
				t.Errorf("%s: damaged (-want +got):\n%s", name, diff)
			}
			b.same(name, want)
		}
	})
}

// What an administrator put above a network's rules stays above them when they
// are repaired or changed.
func TestRepairKeepsPlaces(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		n, top := nat(1), nat(2)
		b.sync(n, top)
		b.Must("iptables", "-I", "LIBVIRT_FWI", "-o", "virbr1", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
		want := b.saved()
		b.Must("iptables", "-D", "LIBVIRT_FWI", "-o", "virbr1", "-j", "REJECT")
		b.sync(n, top)
		b.same("repaired", want)
		changed := n
		changed.NATPorts = network.PortRange{First: 2000, Last: 3000}
		changed.Devices = []string{"eth7"}
		b.apply([]network.Network{changed})
		b.apply([]network.Network{n})
		b.same("changed and changed back", want)
	})
}

// TestNamesOfBridges: rules use the name that a bridge has now, and a network whose
// bridge belongs to another one has none.
func TestNamesOfBridges(t *testing.T) {
	b := newBed(t, "nft", Config{})
	set := func(iface string) {
		t.Helper()
		c := backend.Change{Set: []backend.Member{{Network: nat(1), Iface: iface}}}
		if err := b.Inside(func() error { return b.Apply(context.Background(), c) }); err != nil {
			t.Fatal(err)
		}
	}
	b.apply([]network.Network{nat(2)})
	before := b.saved()
	set("renamed")
	if got := b.saved(); !strings.Contains(got, "-i renamed -j REJECT") || strings.Contains(got, "virbr1") {
		t.Error("the bridge was renamed:\n", got)
	}
	set("")
	b.same("another network has the bridge", before)
}

// TestRemoveAllWithoutRecord: nothing was ever installed, and no program is run.
func TestRemoveAllWithoutRecord(t *testing.T) {
	t.Setenv("PATH", "")
	b, err := Open(Config{Record: filepath.Join(t.TempDir(), "none")})
	if err == nil {
		err = b.RemoveAll(context.Background())
	}
	if err != nil {
		t.Error(err)
	}
}

func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		const record = "/run/virtfirewalld/iptables"
		b := newBed(t, variant, Config{Record: record})
		b.libvirtsOwn()
		before := b.saved()
		nets := []network.Network{nat(1), nat(2), nat(3)}
		b.apply(nets)
		with := b.saved()

		b.open(Config{Record: record})
		if err := b.try(nets[:1]); err != errNotSynced {
			t.Errorf("a change before Sync: %v", err)
		}
		if damaged := b.sync(nets...); damaged != nil {
			t.Errorf("damaged by a restart: %v", damaged)
		}
		b.same("after a restart", with)

		// Two networks are gone when the service comes back, one is another.
		changed := nat(2)
		changed.Addresses = changed.Addresses[:1]
		b.open(Config{Record: record})
		b.sync(changed)
		if got := b.saved(); strings.Contains(got, "virbr1") != strings.Contains(before, "virbr1") || strings.Contains(got, "virbr3") || strings.Contains(got, "fd00:3:") {
			t.Error("rules of networks that are gone:\n", got)
		}
		b.open(Config{Record: record})
		if err := b.Inside(func() error { return b.RemoveAll(context.Background()) }); err != nil {
			t.Fatal(err)
		}
		b.same("after RemoveAll", before)
		if files := b.Must("ls", record); files != triedFile+"\n" {
			t.Errorf("records left: %s", files)
		}
	})
}
