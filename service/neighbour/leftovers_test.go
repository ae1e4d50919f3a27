package neighbour

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// hooks are rules that people's hooks put beside libvirt's, and others'. All
// have the word hook in a comment or in the address of a hooked guest.
var hooks = map[string][]string{
	"iptables": {
		"-t filter -I LIBVIRT_FWI -d 10.2.0.10/32 -o virbr1 -p tcp --dport 80 -m comment --comment hook -j ACCEPT",
		"-t filter -I LIBVIRT_FWO 2 -s 10.2.0.0/24 -i virbr1 -m comment --comment hook -j ACCEPT",
		"-t nat -A LIBVIRT_PRT -s 10.2.0.0/24 -m comment --comment hook -j ACCEPT",
		"-t filter -N hooked", "-t filter -A hooked -i virbr1 -j ACCEPT -m comment --comment hook:\"it's\"\\here",
		"-t filter -A FORWARD -i virbr1 -j hooked", "-t filter -A FORWARD -i virbr10 -j ACCEPT",
	},
	"ip6tables": {"-t filter -A LIBVIRT_INP -i virbr1 -p tcp --dport 8080 -m comment --comment hook -j ACCEPT"},
}

// With the real libvirt, killed as an upgrade may: one network's rules go, and
// everything else stays to the byte.
func TestRemoveOneOfLibvirts(t *testing.T) {
	for _, variant := range []Variant{VariantNFT, VariantLegacy} {
		t.Run(string(variant), func(t *testing.T) {
			t.Parallel()
			h := host.New(t)
			libvirtd := startLibvirt(t, h, variant)
			startVillage(t, h)
			for program, rules := range hooks {
				for _, rule := range rules {
					h.Must(append([]string{program, "-w"}, strings.Fields(rule)...)...)
				}
			}
			kill(t, libvirtd)
			one := village[1].net
			before := saves(h)
			if found := present(t, h, VariantNone, one); !found[one.Name] {
				t.Errorf("libvirt's rules were not found: %v", found)
			}
			// Everything of libvirt's names the bridge or a subnet. With them go
			// the chains that translate IPv6, which no other network uses, and
			// for IPv6 checksums, which none ever does.
			want := without(before, " virbr1 ", " 10.2.0.0/24 ", " 10.12.0.0/16 ", " 2001:db8:2::/64 ")
			want = withoutEmptyChains(want)
			report := remove(t, h, VariantNone, one)
			if diff := cmp.Diff(want, saves(h)); diff != "" {
				t.Error(diff)
			}
			if len(report.Rules) != 2 || len(report.Kept) != 4 || len(report.Chains) != 2 {
				t.Errorf("report: %+v", report)
			}
			if found := present(t, h, VariantNone, everybody()...); found[one.Name] || len(found) != len(village)-1 {
				t.Errorf("found afterwards: %v", found)
			}
			if again := remove(t, h, VariantNone, one); !again.Empty() {
				t.Errorf("the second time: %+v", again)
			}
		})
	}
}

// withoutEmptyChains takes LIBVIRT_PRT out of the tables where it has no rules.
func withoutEmptyChains(text string) string {
	tables := strings.SplitAfter(text, "COMMIT\n")
	for i, table := range tables {
		if !strings.Contains(table, "-A LIBVIRT_PRT") {
			tables[i] = without(table, "LIBVIRT_PRT")
		}
	}
	return strings.Join(tables, "")
}

// With all networks gone, no trace of libvirt stays but what hooks use.
func TestRemoveAllOfLibvirts(t *testing.T) {
	for _, variant := range []Variant{VariantNFT, VariantLegacy} {
		t.Run(string(variant), func(t *testing.T) {
			t.Parallel()
			h := host.New(t)
			libvirtd := startLibvirt(t, h, variant)
			startVillage(t, h)
			kill(t, libvirtd)
			h.Must("iptables", "-w", "-N", "MINE")
			h.Must("iptables", "-w", "-A", "MINE", "-j", "LIBVIRT_FWX")
			before := saves(h)
			if report := remove(t, h, variant, everybody()...); !report.Empty() {
				t.Errorf("of our own variant: %+v", report)
			}
			if diff := cmp.Diff(before, saves(h)); diff != "" {
				t.Error(diff)
			}
			report := remove(t, h, VariantNone, everybody()...)
			var left []string
			for line := range strings.Lines(saves(h)) {
				if strings.Contains(line, "LIBVIRT") {
					left = append(left, strings.TrimSpace(line))
				}
			}
			want := []string{":LIBVIRT_FWX -", "-A FORWARD -j LIBVIRT_FWX", "-A MINE -j LIBVIRT_FWX"}
			if diff := cmp.Diff(want, left); diff != "" {
				t.Error(diff)
			}
			if len(report.Chains) != 2*7-1 || len(report.Kept) != 0 {
				t.Errorf("report: %+v", report)
			}
		})
	}
}

// While libvirt runs its chains stay, so that it can start networks; and when
// it makes its rules again, that is noticed.
func TestLibvirtComesBack(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	libvirtd := startLibvirt(t, h, VariantNFT)
	startVillage(t, h)
	l := NewLeftovers(h.Path(LibvirtRunDir))
	if running, err := l.Running(); !running || err != nil {
		t.Errorf("libvirt runs: %v, %v", running, err)
	}
	one := village[0].net
	if report := remove(t, h, VariantNone, everybody()...); report.Empty() || len(report.Chains) != 0 {
		t.Errorf("report: %+v", report)
	}
	if found := present(t, h, VariantNone, everybody()...); len(found) != 0 {
		t.Errorf("found after removal: %v", found)
	}
	h.Must(virsh("net-destroy", one.Name)...)
	h.Must(virsh("net-start", one.Name)...)
	if found := present(t, h, VariantNone, everybody()...); !found[one.Name] || len(found) != 1 {
		t.Errorf("found after a restart of %s: %v", one.Name, found)
	}
	if err := libvirtd.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); len(present(t, h, VariantNone, everybody()...)) != len(village); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("found after a reload: %v", present(t, h, VariantNone, everybody()...))
		}
	}
	kill(t, libvirtd)
	if running, err := l.Running(); running || err != nil {
		t.Errorf("libvirt runs after its end: %v, %v", running, err)
	}
	remove(t, h, VariantNone, everybody()...)
	if text := saves(h); strings.Contains(text, "LIBVIRT") {
		t.Errorf("left behind:\n%s", text)
	}
}

// A host where libvirt never was gets no tables by our looking.
func TestNothingThere(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	if report := remove(t, h, VariantNone, everybody()...); !report.Empty() {
		t.Errorf("report: %+v", report)
	}
	if found := present(t, h, VariantNone, everybody()...); len(found) != 0 {
		t.Errorf("found: %v", found)
	}
	if text := ruleset(h) + h.Must("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"); text != "" {
		t.Errorf("made by looking:\n%s", text)
	}
	if running, err := NewLeftovers(t.TempDir()).Running(); running || err != nil {
		t.Errorf("libvirt runs: %v, %v", running, err)
	}
}
