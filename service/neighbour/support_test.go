package neighbour

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// virsh returns the command line for a libvirt that manages networks alone.
func virsh(args ...string) []string {
	return append([]string{"virsh", "-q", "-c", "network:///system"}, args...)
}

// startLibvirt starts the real libvirtd, whose iptables is of the variant.
func startLibvirt(t *testing.T, h *host.Host, variant xtables.Variant) *host.Process {
	t.Helper()
	h.Bus()
	suffix := map[xtables.Variant]string{xtables.VariantNFT: "-nft", xtables.VariantLegacy: "-legacy"}[variant]
	for _, base := range []string{"iptables", "ip6tables"} {
		for _, program := range []string{"", "-save", "-restore"} {
			h.Must("ln", "-sfn", "/usr/sbin/"+base+suffix+program, "/etc/alternatives/"+base+program)
		}
	}
	h.Must("rm", "-rf", "/etc/libvirt/qemu/networks")
	p := h.Start("libvirtd", "/usr/sbin/libvirtd")
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		_, err := h.Run(virsh("net-list")...)
		if err == nil {
			return p
		}
		if time.Since(start) > time.Minute || !p.Running() {
			t.Fatalf("libvirtd does not answer: %v (install the Debian package libvirt-daemon-system)\n%s", err, p.Log())
		}
	}
}

// village holds networks of each kind, as libvirt and as we know them.
var village = []struct {
	xml string
	net network.Network
}{
	{"<forward mode='nat'/><ip address='10.1.0.1' prefix='24'><dhcp><range start='10.1.0.10' end='10.1.0.20'/></dhcp></ip>" +
		"<ip family='ipv6' address='2001:db8:1::1' prefix='64'/>", networkOf(0, network.ModeNAT, "10.1.0.1/24", "2001:db8:1::1/64")},
	{"<forward mode='nat'><nat ipv6='yes'><address start='203.0.113.1' end='203.0.113.4'/><port start='2000' end='3000'/></nat></forward>" +
		"<ip address='10.2.0.1' prefix='24'><tftp root='/tmp'/><dhcp><range start='10.2.0.10' end='10.2.0.20'/></dhcp></ip>" +
		"<ip address='10.12.0.1' prefix='16'/><ip family='ipv6' address='2001:db8:2::1' prefix='64'/>",
		networkOf(1, network.ModeNAT, "10.2.0.1/24", "10.12.0.1/16", "2001:db8:2::1/64")},
	{"<forward mode='route' dev='lo'/><ip address='10.3.0.1' prefix='24'/><ip family='ipv6' address='2001:db8:3::1' prefix='64'/>",
		networkOf(2, network.ModeRoute, "10.3.0.1/24", "2001:db8:3::1/64")},
	{"<ip address='10.4.0.1' prefix='24'/>", networkOf(3, network.ModeIsolated, "10.4.0.1/24")},
}

func networkOf(i int, mode network.Mode, addresses ...string) network.Network {
	n := network.Network{Name: fmt.Sprint("n", i), Bridge: fmt.Sprint("virbr", i), Mode: mode}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParsePrefix(a))
	}
	return n
}

// startVillage has libvirt start the networks.
func startVillage(t *testing.T, h *host.Host) {
	t.Helper()
	for _, v := range village {
		xml := fmt.Sprintf("<network><name>%s</name><bridge name='%s' stp='off'/>%s</network>", v.net.Name, v.net.Bridge, v.xml)
		if err := h.WriteFile("/root/network.xml", []byte(xml), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Must(virsh("net-define", "/root/network.xml")...)
		h.Must(virsh("net-start", v.net.Name)...)
	}
}

func allNetworks() (nets []network.Network) {
	for _, v := range village {
		nets = append(nets, v.net)
	}
	return nets
}

// kill ends libvirtd as the kernel would, so that it cannot clean up.
func kill(t *testing.T, p *host.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
}

// remove runs Remove on the host.
func remove(t *testing.T, h *host.Host, ours xtables.Variants, nets ...network.Network) Report {
	t.Helper()
	var report Report
	err := h.Do(func() (err error) {
		report, err = leftovers(h).Remove(context.Background(), nets, ours)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func leftovers(h *host.Host) *Leftovers { return NewLeftovers(libvirt.New(h.Path(libvirt.RunDir))) }

// forget deletes the status documents of networks, as a reboot does, or an
// administrator who cleans up after a libvirt that is gone.
func forget(h *host.Host, nets ...network.Network) {
	for _, n := range nets {
		h.Must("rm", libvirt.RunDir+"/"+n.Name+".xml")
	}
}

func present(t *testing.T, h *host.Host, nets ...network.Network) map[string]int {
	t.Helper()
	var found Presence
	err := h.Do(func() (err error) {
		found, err = leftovers(h).Present(context.Background(), nets)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out := found.XTables
	for name, n := range found.Tables {
		out[name] = max(out[name], n)
	}
	return out
}

var (
	counts  = regexp.MustCompile(`\[\d+:\d+\]|packets \d+ bytes \d+`)
	remarks = regexp.MustCompile(`(?m)^#.*\n`)
)

// saves returns what the iptables programs and nft list, without counters.
func saves(h *host.Host) string {
	var b strings.Builder
	for _, x := range []chainSet{{xtables.VariantNFT, false}, {xtables.VariantNFT, true}, {xtables.VariantLegacy, false}, {xtables.VariantLegacy, true}} {
		b.WriteString("== " + x.name() + "\n" + remarks.ReplaceAllString(h.Must(x.name()+"-save"), ""))
	}
	return counts.ReplaceAllString(b.String(), "")
}

// ruleset returns what nft lists, without counters.
func listing(h *host.Host) string {
	return counts.ReplaceAllString(remarks.ReplaceAllString(h.Must("nft", "-a", "list", "ruleset"), ""), "")
}

// without returns text without lines that name any of the words, but with those
// that a hook made.
func without(text string, words ...string) string {
	var b strings.Builder
lines:
	for line := range strings.Lines(text) {
		for _, word := range words {
			if strings.Contains(line, word) && !strings.Contains(line, "hook") {
				continue lines
			}
		}
		b.WriteString(line)
	}
	return b.String()
}
