//go:build modules

package packets

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// These tests are for a kernel that was just booted and has loaded nothing, so
// for one each: tests/kernel boots it.

// loaded are those of the modules that the kernel has.
func loaded(t *testing.T, modules ...string) (out []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/modules")
	rig.Must(t, err)
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, " "); slices.Contains(modules, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// fromNothing starts the service with a configuration on a kernel that has none
// of the modules, and checks that its rules work and that the modules came.
func fromNothing(t *testing.T, backend string, prepare func(r *rig.Rig), modules, absent []string) *rig.Rig {
	t.Helper()
	if before := loaded(t, append(modules, absent...)...); len(before) > 0 {
		t.Fatalf("the kernel has loaded %q before the service began", before)
	}
	r := rig.New(t)
	if prepare != nil {
		prepare(r)
	}
	r.StartDaemon()
	if got := r.ManagerProperty("Backend"); got != backend {
		t.Errorf("the backend is %v, want %s", got, backend)
	}
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(withDHCP(rig.NetXML("default", "virbr0", "nat", rig.NatNet))))
	guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
	rig.Natted(t, guest, internet, "with a kernel that had nothing loaded")
	rig.Guarded(t, guest, internet, "with a kernel that had nothing loaded")
	slices.Sort(modules)
	var got []string
	// Help for DHCP comes a moment later.
	if !rig.Await(rig.CallTimeout, func() bool { got = loaded(t, modules...); return slices.Equal(got, modules) }) {
		t.Errorf("of the modules %q the kernel has loaded %q", modules, got)
	}
	if got := loaded(t, absent...); len(got) > 0 {
		t.Errorf("the service had %q loaded", got)
	}
	return r
}

// TestNothingLoadedThenNFTables: the choice is made by trying, and trying loads
// what is needed. A host without iptables' rules is not given its tables.
func TestNothingLoadedThenNFTables(t *testing.T) {
	r := fromNothing(t, "nftables", nil,
		[]string{"nf_tables", "nf_conntrack", "nf_nat", "nft_masq", "nft_chain_nat", "nft_ct", "nft_reject_inet", "act_csum", "cls_u32", "sch_ingress"},
		[]string{"ip_tables", "ip6_tables", "nft_compat", "iptable_filter", "iptable_nat", "iptable_mangle"})
	// This kernel is here for what it lacks, too.
	if !strings.Contains(r.Daemon.Log(), "cannot protect the table") || strings.Contains(r.Table(), "flags") {
		t.Errorf("the table is protected on a kernel before 6.9:\n%s", r.Table())
	}
}

func TestNothingLoadedThenIptablesNFT(t *testing.T) {
	fromNothing(t, "iptables", configuredIptables("nft"),
		[]string{"nf_tables", "nft_compat", "nf_conntrack", "nf_nat", "xt_MASQUERADE", "xt_conntrack", "nft_chain_nat"},
		[]string{"iptable_filter", "iptable_nat"})
}

func TestNothingLoadedThenIptablesLegacy(t *testing.T) {
	fromNothing(t, "iptables", configuredIptables("legacy"),
		[]string{"ip_tables", "ip6_tables", "iptable_filter", "ip6table_filter", "iptable_nat", "xt_MASQUERADE", "xt_conntrack"},
		[]string{"nft_compat"}) // nftables is tried all the same, to say what the host has
}

func configuredIptables(variant string) func(r *rig.Rig) {
	return func(r *rig.Rig) {
		for _, name := range []string{"iptables", "ip6tables"} {
			r.Must("update-alternatives", "--set", name, "/usr/sbin/"+name+"-"+variant)
		}
		r.Write(rig.ConfigFile, "firewall_backend = iptables\n")
	}
}
