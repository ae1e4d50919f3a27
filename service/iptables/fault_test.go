package iptables

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// quiet is for tests in which the backend logs warnings.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// wrap replaces a program by a script, which finds the program as $real.
func (b *bed) wrap(program, script string) {
	b.t.Helper()
	b.Must("sh", "-c", fmt.Sprintf(`mkdir -p /usr/local/sbin; printf '%%s\n' '#!/bin/sh' 'real=/usr/sbin/%s' '%s' > /usr/local/sbin/%s; chmod 755 /usr/local/sbin/%s`,
		program, script, program, program))
}

func TestChangeThatFailsChangesNothing(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	faults := map[string]struct{ program, script string }{
		"the second family":                         {"ip6tables-restore", `case $1 in -V) ;; *) [ -e /tmp/fault ] && rm /tmp/fault && echo broken >&2 && exit 1;; esac; exec $real "$@"`},
		"the first family":                          {"iptables-restore", `case $1 in -V) ;; *) [ -e /tmp/fault ] && rm /tmp/fault && echo broken >&2 && exit 1;; esac; exec $real "$@"`},
		"the first family, when the second is done": {"iptables-restore", `case $1 in -V) ;; *) [ -e /tmp/fault ] && rm /tmp/fault && sleep 0.1 && echo broken >&2 && exit 1;; esac; exec $real "$@"`},
		"the second family, when the first is done": {"ip6tables-restore", `case $1 in -V) ;; *) [ -e /tmp/fault ] && rm /tmp/fault && sleep 0.1 && echo broken >&2 && exit 1;; esac; exec $real "$@"`},
		"the second table":                          {"iptables-restore", `case $1 in -V) ;; *) if [ -e /tmp/fault ]; then rm /tmp/fault; sed "/^\*mangle/,\$d" | $real "$@"; echo broken >&2; exit 1; fi;; esac; exec $real "$@"`},
		"a family that says no when all is done":    {"ip6tables-restore", `case $1 in -V) ;; *) if [ -e /tmp/fault ]; then rm /tmp/fault; $real "$@"; echo broken >&2; exit 1; fi;; esac; exec $real "$@"`},
	}
	for _, variant := range variants {
		for name, f := range faults {
			t.Run(variant+"/"+name, func(t *testing.T) {
				b := newBed(t, variant, Config{Log: quiet()})
				b.libvirtsOwn()
				b.wrap(f.program, f.script)
				before := b.saved()
				changed := nat(1)
				changed.Mode = network.ModeRoute
				changed.NATIPv6 = false
				for _, step := range []struct {
					what   string
					set    []network.Network
					remove []string
				}{
					{"the first network", []network.Network{nat(1)}, nil},
					{"another network", []network.Network{nat(2)}, nil},
					{"a change", []network.Network{changed}, nil},
					{"a removal", nil, []string{"net2"}},
					{"the last removal", nil, []string{"net1"}},
				} {
					// The quick way tries again with a look, so that it takes two.
					b.Must("touch", "/tmp/fault")
					err := b.try(step.set, step.remove...)
					if err != nil && !strings.Contains(err.Error(), "broken") {
						t.Fatal(err)
					}
					if err != nil {
						b.same(step.what, before)
						b.apply(step.set, step.remove...)
					}
					before = b.saved()
				}
				if strings.Contains(before, "virbr1 -j REJECT") {
					t.Error("rules left:\n", before)
				}
			})
		}
	}
}

// TestFamiliesAtOnce: the programs of both families run at once, but for those of the
// legacy variant that wait for one lock.
func TestFamiliesAtOnce(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	// A program waits half a second for the other family's.
	const meet = `case $1 in -V) ;; *) own=$0.runs other=%s.runs; touch $own; n=0
while [ ! -e $other ] && [ $n -lt 50 ]; do sleep 0.01; n=$((n+1)); done
[ -e $other ] && echo met >>/tmp/$(basename $0) || echo alone >>/tmp/$(basename $0)
sleep 0.1; rm $own;; esac; exec $real "$@"`
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{Log: quiet()})
		for _, suffix := range []string{"-save", "-restore"} {
			b.wrap("iptables"+suffix, fmt.Sprintf(meet, "/usr/local/sbin/ip6tables"+suffix))
			b.wrap("ip6tables"+suffix, fmt.Sprintf(meet, "/usr/local/sbin/iptables"+suffix))
		}
		b.apply([]network.Network{nat(1)})
		for _, program := range []string{"iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"} {
			unwanted := "alone"
			if variant == "legacy" && strings.HasSuffix(program, "-restore") {
				unwanted = "met"
			}
			met, err := b.ReadFile("/tmp/" + program)
			if err != nil || strings.Contains(string(met), unwanted) {
				t.Errorf("%s: %v, %s", program, err, met)
			}
		}
	})
}

func TestHostileNames(t *testing.T) {
	b := newBed(t, "nft", Config{})
	before := b.saved()
	for _, name := range []string{"-j", "!", "a b", "a'b", `a"b`, "br+", "vür", "br0\nCOMMIT", "$(id)", "br;id", "#br", "+", ""} {
		n := nat(1)
		n.Bridge = name
		m := nat(1)
		m.Devices = []string{name}
		for _, n := range []network.Network{n, m} {
			err := Check(n)
			if n.Bridge != "" { // else it is left out
				err = b.try([]network.Network{n})
			}
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) && name != "" {
				t.Errorf("%q: %v", name, err)
			}
			if lines := strings.Count(Text(n), "\n"); lines != strings.Count(Text(nat(1)), "\n") {
				t.Errorf("%q: %d lines of text", name, lines)
			}
		}
	}
	n := nat(1)
	n.Name = "a\" -j DROP\nCOMMIT\n# '$(id)`"
	n.Bridge = "virbr-1.x_y"
	b.apply([]network.Network{n})
	if got := b.saved(); strings.Contains(got, "id") || !strings.Contains(got, "-i virbr-1.x_y -j REJECT") {
		t.Error(got)
	}
	b.apply(nil, n.Name)
	if got := b.saved(); strings.Contains(got, "LIBVIRT") {
		t.Errorf("before:\n%s\nafter:\n%s", before, got)
	}
}

func TestProbe(t *testing.T) {
	each(t, func(t *testing.T, variant string) {
		b := newBed(t, variant, Config{})
		b.libvirtsOwn()
		before := b.saved()
		if err := b.Inside(func() error { return b.Probe(context.Background()) }); err != nil {
			t.Fatal(err)
		}
		b.same("probing", before)
		want := map[string]xtables.Variant{"nft": xtables.VariantNFT, "legacy": xtables.VariantLegacy}[variant]
		if b.Variants() != (xtables.Variants{IPv4: want, IPv6: want}) || !strings.HasPrefix(b.families.Both[0].Version, "1.") {
			t.Errorf("variants %q, version %q", b.Variants(), b.families.Both[0].Version)
		}
	})
}

// TestProbeTriesOnce: a process relies on an earlier one's probe as long as the
// programs are the same and work.
func TestProbeTriesOnce(t *testing.T) {
	t.Setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	each(t, func(t *testing.T, variant string) {
		cfg := Config{Log: quiet(), Record: "/run/trial"}
		b := newBed(t, variant, cfg)
		b.wrap("iptables-restore", `case $1 in -V) ;; *) echo run >>/tmp/runs; [ -e /tmp/fault ] && echo broken >&2 && exit 1;; esac; exec $real "$@"`)
		tried := func(what string, want bool) {
			t.Helper()
			b.Must("rm", "-f", "/tmp/runs")
			b.open(cfg)
			if err := b.Inside(func() error { return b.Probe(context.Background()) }); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if _, err := b.ReadFile("/tmp/runs"); (err == nil) != want {
				t.Errorf("%s: tried: %v, want %v", what, err == nil, want)
			}
			if b.Variants() == (xtables.Variants{}) {
				t.Errorf("%s: the variant is not known", what)
			}
		}
		tried("at first", true)
		tried("in the next process", false)
		b.Must("touch", "/tmp/fault")
		if err := b.Inside(func() error { _, err := b.Sync(context.Background(), members(nat(1))); return err }); err == nil {
			t.Fatal("a program that fails was believed")
		}
		b.Must("rm", "/tmp/fault")
		tried("after it failed", true)
		tried("once more", false)
		b.wrap("ip6tables", `$real "$@" | sed "s/v1[^ ]*/v1.99/"`)
		tried("with another version", true)
	})
}

func TestProbeSaysWhatIsMissing(t *testing.T) {
	b := newBed(t, "nft", Config{Log: quiet()})
	for name, c := range map[string]struct{ prepare, want string }{
		"no ip6tables":     {"rm $d/ip6tables", "install iptables"},
		"no restore":       {"rm $d/iptables-restore", "looking for iptables-restore"},
		"mixed":            {"ln -sf /usr/sbin/iptables-legacy-save $d/iptables-save", "let both be of one variant"},
		"families differ":  {"for p in '' -restore -save; do ln -sf /usr/sbin/ip6tables-legacy$p $d/ip6tables$p; done", ""},
		"no such target":   {`rm $d/iptables-restore; printf '#!/bin/sh\ncase $1 in -V) exec /usr/sbin/iptables-restore -V;; esac\nsed s/RETURN/NOSUCH/ | /usr/sbin/iptables-restore "$@"\n' > $d/iptables-restore; chmod 755 $d/iptables-restore`, "NOSUCH"},
		"no checksum help": {`rm $d/iptables-restore; printf '#!/bin/sh\ncase $1 in -V) exec /usr/sbin/iptables-restore -V;; esac\nsed s/CHECKSUM/NOSUCH/ | /usr/sbin/iptables-restore "$@"\n' > $d/iptables-restore; chmod 755 $d/iptables-restore`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("/tmp", strings.ReplaceAll(name, " ", "-"))
			b.Must("sh", "-c", "d="+dir+"; mkdir $d; for p in '' -restore -save; do ln -s /usr/sbin/iptables$p /usr/sbin/ip6tables$p $d; done; "+c.prepare)
			t.Setenv("PATH", dir+":/usr/bin:/bin")
			if c.want != "" && strings.HasPrefix(c.prepare, "rm") && !strings.Contains(c.prepare, "printf") {
				t.Setenv("PATH", dir)
			}
			b.open(Config{Log: quiet()})
			err := b.Inside(func() error { return b.Probe(context.Background()) })
			if c.want == "" && err != nil || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			different := xtables.Variants{IPv4: xtables.VariantNFT, IPv6: xtables.VariantLegacy}
			if name == "families differ" && (b.Variants() != different || b.Variants().String() != "nf_tables, for IPv6 legacy") {
				t.Error(b.Variants())
			}
			for _, program := range []string{"iptables-save", "ip6tables-save", "iptables-legacy-save"} {
				if out := b.Must(program); strings.Contains(out, probeChain) {
					t.Error("the probe's chain is left:\n", out)
				}
			}
		})
	}
}

func TestTableThatIptablesCannotRead(t *testing.T) {
	b := newBed(t, "nft", Config{Log: quiet()})
	b.Must("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; }; add rule ip filter FORWARD ct state vmap { invalid : drop }")
	err := b.try([]network.Network{nat(1)})
	if err == nil || !strings.Contains(err.Error(), "filter") {
		t.Fatal(err)
	}
	out := b.Must("nft", "list", "ruleset")
	if strings.Contains(out, "LIBVIRT") || strings.Contains(out, probeChain) {
		t.Error(out)
	}
}

func TestRecordThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Record: dir}); err == nil {
		t.Fatal("a file was taken for the folder of records")
	}
	const record = "/run/virtfirewalld/iptables"
	b := newBed(t, "nft", Config{Record: record})
	b.apply([]network.Network{nat(1)})
	before := b.saved()
	b.Must("sh", "-c", "rm -r "+record+"; touch "+record)
	if err := b.try([]network.Network{nat(2)}); err == nil {
		t.Error("a network was put in that no later process would know")
	}
	b.same("without a record", before)
}
