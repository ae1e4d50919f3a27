package choice

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	errKernel = errors.New("probing nf_tables: protocol not supported")
	errBinary = errors.New("looking for iptables: not found in PATH")

	onlyNFT      = Available{NFT: true, IPTables: errBinary}
	onlyIPTables = Available{Variant: "nf_tables"}
	both         = Available{NFT: true, Variant: "nf_tables"}
	legacyOnly   = Available{NFT: true, NFTables: errKernel, Variant: "legacy"}
	kernelOnly   = Available{IPTables: errBinary}
	nothing      = Available{NFT: true, NFTables: errKernel, IPTables: errBinary}
)

func own(value string) Configured {
	return Configured{Own: Setting{value, "/etc/virtfirewalld/virtfirewalld.conf", 3}}
}

func libvirt(value string) Configured {
	return Configured{Libvirt: Setting{value, "/etc/libvirt/network.conf", 12}}
}

func TestChoose(t *testing.T) {
	const ownSource = "configured in /etc/virtfirewalld/virtfirewalld.conf, line 3"
	const libvirtSource = "configured in /etc/libvirt/network.conf, line 12"
	const bySelf = "nftables: the kernel has it and nft is installed"
	disagreeing := own("nftables")
	disagreeing.Libvirt = libvirt("iptables").Libvirt
	undecided := own("auto")
	undecided.Libvirt = libvirt("iptables").Libvirt
	nonsense := own("iptables")
	nonsense.Libvirt = libvirt("ebtables").Libvirt
	for _, c := range []struct {
		name            string
		configured      Configured
		has             Available
		backend, source string
		available       []string
	}{
		{"only nftables installed", Configured{}, onlyNFT, "nftables", bySelf, []string{"nftables"}},
		{"only iptables installed", Configured{}, onlyIPTables, "iptables", "iptables (nf_tables): it works, and nft is not installed", []string{"nftables", "iptables"}},
		{"both installed", Configured{}, both, "nftables", bySelf, []string{"nftables", "iptables"}},
		{"no nf_tables in the kernel", Configured{}, legacyOnly, "iptables", "iptables (legacy): it works, and nftables does not", []string{"iptables"}},
		{"no program at all", Configured{}, kernelOnly, "nftables", "nftables: the kernel has it; neither nft nor a working iptables is installed", []string{"nftables"}},
		{"an iptables of unknown variant", Configured{}, Available{}, "iptables", "iptables: it works, and nft is not installed", []string{"nftables", "iptables"}},

		{"own nftables", own("nftables"), both, "nftables", ownSource, []string{"nftables", "iptables"}},
		{"own iptables", own("iptables"), both, "iptables", ownSource, []string{"nftables", "iptables"}},
		{"own nftables needs no nft", own("nftables"), onlyIPTables, "nftables", ownSource, []string{"nftables", "iptables"}},
		{"own auto", own("auto"), both, "nftables", bySelf, []string{"nftables", "iptables"}},
		{"own before libvirt's", disagreeing, both, "nftables", ownSource, []string{"nftables", "iptables"}},
		{"own before an unknown one of libvirt's", nonsense, both, "iptables", ownSource, []string{"nftables", "iptables"}},
		{"own auto leaves it to libvirt's", undecided, both, "iptables", libvirtSource, []string{"nftables", "iptables"}},
		{"libvirt's iptables", libvirt("iptables"), both, "iptables", libvirtSource, []string{"nftables", "iptables"}},
		{"libvirt's nftables", libvirt("nftables"), onlyIPTables, "nftables", libvirtSource, []string{"nftables", "iptables"}},
		{"libvirt's none is not set", libvirt("none"), both, "nftables", bySelf, []string{"nftables", "iptables"}},
		{"libvirt's pf is not set", libvirt("pf"), onlyIPTables, "iptables", "iptables (nf_tables): it works, and nft is not installed", []string{"nftables", "iptables"}},
		{"a client's", Configured{Own: Setting{Value: "iptables"}}, both, "iptables", "asked for by a client", []string{"nftables", "iptables"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Choose(c.configured, c.has)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Decision{c.backend, c.source, c.available}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChooseRefuses(t *testing.T) {
	for _, c := range []struct {
		name        string
		configured  Configured
		has         Available
		unavailable bool
		probe       error    // in the chain
		words       []string // in the message
		available   []string
	}{
		{"neither", Configured{}, nothing, true, errKernel, []string{"the probe of nftables failed: " + errKernel.Error(), "the probe of iptables failed: " + errBinary.Error(), "install iptables"}, nil},
		{"an unknown own value", own("nftable"), both, false, nil, []string{"/etc/virtfirewalld/virtfirewalld.conf, line 3: ", `unknown firewall_backend "nftable"`, "auto, nftables or iptables"}, []string{"nftables", "iptables"}},
		{"none of our own", own("none"), both, false, nil, []string{"line 3: ", `"none"`}, []string{"nftables", "iptables"}},
		{"an unknown value of libvirt's", libvirt("ebtables"), both, false, nil, []string{"/etc/libvirt/network.conf, line 12: ", `unknown firewall_backend "ebtables"`, "nftables or iptables"}, []string{"nftables", "iptables"}},
		{"auto in libvirt's", libvirt("auto"), both, false, nil, []string{"/etc/libvirt/network.conf, line 12: "}, []string{"nftables", "iptables"}},
		{"own iptables is missing", own("iptables"), onlyNFT, true, errBinary, []string{"/etc/virtfirewalld/virtfirewalld.conf, line 3: ", "the probe of iptables failed: " + errBinary.Error(), `set firewall_backend = "nftables"`}, []string{"nftables"}},
		{"own nftables does not work", own("nftables"), legacyOnly, true, errKernel, []string{"line 3: ", "the probe of nftables failed: " + errKernel.Error(), `set firewall_backend = "iptables"`}, []string{"iptables"}},
		{"libvirt's iptables is missing", libvirt("iptables"), onlyNFT, true, errBinary, []string{"/etc/libvirt/network.conf, line 12: ", "the probe of iptables failed"}, []string{"nftables"}},
		{"own iptables is missing and nothing else works", own("iptables"), nothing, true, errBinary, []string{errBinary.Error() + ": install iptables (no usable"}, nil},
		{"a client's iptables is missing", Configured{Own: Setting{Value: "iptables"}}, onlyNFT, true, errBinary, []string{"the probe of iptables failed"}, []string{"nftables"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Choose(c.configured, c.has)
			if err == nil {
				t.Fatalf("chose %+v", got)
			}
			if diff := cmp.Diff(Decision{Available: c.available}, got); diff != "" {
				t.Error(diff)
			}
			if errors.Is(err, ErrUnavailable) != c.unavailable || c.probe != nil && !errors.Is(err, c.probe) {
				t.Errorf("the chain of %v is wrong", err)
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v\ndoes not say %q", err, word)
				}
			}
		})
	}
}
