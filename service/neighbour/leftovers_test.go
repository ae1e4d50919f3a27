package neighbour

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// hooks are rules that administrators' hooks put beside libvirt's, and others'. All
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

// With the real libvirt, killed as an upgrade may: the rules of one network that
// it has no longer go, and everything else stays to the byte.
func TestRemoveOneOfLibvirts(t *testing.T) {
	for _, variant := range []xtables.Variant{xtables.VariantNFT, xtables.VariantLegacy} {
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
			if found := present(t, h, one); found[one.Name] == 0 {
				t.Errorf("libvirt's rules were not found: %v", found)
			}
			if report := remove(t, h, xtables.Variants{}, allNetworks()...); !report.Empty() {
				t.Errorf("of networks that libvirt has: %+v", report)
			}
			forget(h, one)
			// Everything of libvirt's names the bridge or a subnet.
			want := without(before, " virbr1 ", " 10.2.0.0/24 ", " 10.12.0.0/16 ", " 2001:db8:2::/64 ")
			report := remove(t, h, xtables.Variants{}, one)
			if diff := cmp.Diff(want, saves(h)); diff != "" {
				t.Error(diff)
			}
			if len(report.Rules) != 2 || len(report.Kept) != 4 || len(report.Chains) != 0 {
				t.Errorf("report: %+v", report)
			}
			if found := present(t, h, allNetworks()...); found[one.Name] > 0 || len(found) != len(village)-1 {
				t.Errorf("found afterwards: %v", found)
			}
			if again := remove(t, h, xtables.Variants{}, one); !again.Empty() {
				t.Errorf("the second time: %+v", again)
			}
		})
	}
}

// With all networks gone, no trace of libvirt stays but what hooks use.
func TestRemoveAllOfLibvirts(t *testing.T) {
	for _, variant := range []xtables.Variant{xtables.VariantNFT, xtables.VariantLegacy} {
		t.Run(string(variant), func(t *testing.T) {
			t.Parallel()
			h := host.New(t)
			libvirtd := startLibvirt(t, h, variant)
			startVillage(t, h)
			kill(t, libvirtd)
			h.Must("iptables", "-w", "-N", "MINE")
			h.Must("iptables", "-w", "-A", "MINE", "-j", "LIBVIRT_FWX")
			before := saves(h)
			if report := remove(t, h, xtables.Variants{}, allNetworks()...); !report.Empty() {
				t.Errorf("of networks that libvirt has: %+v", report)
			}
			forget(h, allNetworks()...)
			if report := remove(t, h, xtables.Variants{IPv4: variant, IPv6: variant}, allNetworks()...); !report.Empty() {
				t.Errorf("of our own variant: %+v", report)
			}
			if diff := cmp.Diff(before, saves(h)); diff != "" {
				t.Error(diff)
			}
			report := remove(t, h, xtables.Variants{}, allNetworks()...)
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

// TestOwnRulesOfEachFamilyStay: the programs of the two families need not be of
// one variant. Ours are left alone in each; the same rules elsewhere are removed.
func TestOwnRulesOfEachFamilyStay(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	one := village[0].net
	v4, v6, _ := strings.Cut(iptables.Text(one), "# IPv6")
	for program, text := range map[string]string{"iptables-nft-restore": v4, "ip6tables-legacy-restore": "#" + v6} {
		if out, err := h.RunInput(text, program, "--noflush"); err != nil {
			t.Fatal(out, err)
		}
	}
	before := saves(h)
	ours := xtables.Variants{IPv4: xtables.VariantNFT, IPv6: xtables.VariantLegacy}
	if report := remove(t, h, ours, one); !report.Empty() {
		t.Errorf("of our own: %+v", report)
	}
	if diff := cmp.Diff(before, saves(h)); diff != "" {
		t.Error(diff)
	}
	swapped := xtables.Variants{IPv4: xtables.VariantLegacy, IPv6: xtables.VariantNFT}
	if report := remove(t, h, swapped, one); len(report.Rules) != 2 || strings.Contains(saves(h), "LIBVIRT") {
		t.Errorf("of libvirt's: %+v\n%s", report, saves(h))
	}
}

// TestWhatLibvirtHasStays: whether the daemon runs or not, over its starts,
// stops and reloads, nothing goes that it has, and a network's rules that are
// gone are missed.
func TestWhatLibvirtHasStays(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	libvirtd := startLibvirt(t, h, xtables.VariantNFT)
	startVillage(t, h)
	one := village[0].net
	all := saves(h)
	stays := func(what string) {
		t.Helper()
		if report := remove(t, h, xtables.Variants{}, allNetworks()...); !report.Empty() {
			t.Errorf("%s: %+v", what, report)
		}
	}
	stays("running")
	if diff := cmp.Diff(all, saves(h)); diff != "" {
		t.Error(diff)
	}
	h.Must("iptables", "-F", "LIBVIRT_FWO")
	if found := present(t, h, allNetworks()...); found[one.Name] >= len(iptables.Compile(one)) || found[one.Name] == 0 {
		t.Errorf("found where a chain was emptied: %v", found)
	}
	h.Must(virsh("net-destroy", one.Name)...)
	stays("one stopped")
	h.Must(virsh("net-start", one.Name)...)
	stays("one started")
	// Each network misses a rule until the reload is done with it.
	for _, program := range []string{"iptables", "ip6tables"} {
		h.Must(program, "-F", "LIBVIRT_FWO")
	}
	if err := libvirtd.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	complete := func() bool { return sorted(saves(h)) == sorted(all) }
	for start := time.Now(); !complete(); time.Sleep(50 * time.Millisecond) {
		if stays("reloading"); time.Since(start) > host.Patient(30*time.Second) {
			t.Fatalf("after a reload:\n%s", cmp.Diff(sorted(all), sorted(saves(h))))
		}
	}
	kill(t, libvirtd)
	stays("killed")
	if !complete() {
		t.Error(cmp.Diff(sorted(all), sorted(saves(h))))
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Reading creates no tables on a host where libvirt never was.
func TestNothingThere(t *testing.T) {
	t.Parallel()
	h := host.New(t)
	if report := remove(t, h, xtables.Variants{}, allNetworks()...); !report.Empty() {
		t.Errorf("report: %+v", report)
	}
	if found := present(t, h, allNetworks()...); len(found) != 0 {
		t.Errorf("found: %v", found)
	}
	if text := listing(h) + h.Must("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"); text != "" {
		t.Errorf("made by looking:\n%s", text)
	}
}
