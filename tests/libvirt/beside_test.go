// Package libvirt holds the tests beside the real libvirt.
package libvirt

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// places are where the libvirt of a host can have its rules: in either variant
// of iptables, and, since 10.4, in nft tables of its own.
func places(t *testing.T) []string {
	t.Helper()
	h := host.New(t)
	if _, err := h.Run("test", "-e", "/etc/libvirt/network.conf"); err != nil {
		return rig.IptablesVariants
	}
	return append([]string{"nftables"}, rig.IptablesVariants...)
}

// besideRig returns a host where libvirt has two networks, with its rules in a place,
// and where the service is not started yet. The service's settings say which
// backend it has, whatever libvirt's say.
func besideRig(t *testing.T, place, backend string) (*rig.Rig, *rig.Libvirt) {
	t.Helper()
	return libvirtBeside(t, rig.New(t), place, backend)
}

func libvirtBeside(t *testing.T, r *rig.Rig, place, backend string) (*rig.Rig, *rig.Libvirt) {
	t.Helper()
	variant := place
	if place == "nftables" {
		variant = "nft"
	}
	rig.SetIptables(r.Host, variant)
	if _, err := r.Run("test", "-e", "/etc/libvirt/network.conf"); err == nil {
		use := "iptables"
		if place == "nftables" {
			use = "nftables"
			// The kernel has no act_csum: of tc, just that is left out.
			r.Must("sh", "-c", `t=$(readlink -f "$(command -v tc)"); mv "$t" "$t.real"
				printf '#!/bin/sh\ncase "$*" in *"action csum"*) exit 0;; esac\nexec %s.real "$@"\n' "$t" > "$t"; chmod 755 "$t"`)
		}
		r.Must("sh", "-c", "echo 'firewall_backend = \""+use+"\"' >> /etc/libvirt/network.conf")
	}
	r.Write(rig.ConfigFile, "firewall_backend = \""+backend+"\"\n")
	p := rig.LibvirtOn(t, r.Host)
	for _, xml := range []string{firstXML, secondXML} {
		rig.Must(t, p.StartNetwork(nameIn(xml), xml))
	}
	return r, p
}

var changing = regexp.MustCompile(`counter packets \d+ bytes \d+ |iif \d+|oif \d+`)

// libvirtsRules returns libvirt's own rules, wherever they are: in any order, since
// a reload takes networks in any, and each as often as it is there.
func libvirtsRules(r *rig.Rig) string {
	r.T.Helper()
	rules := libvirts(rig.SavedRules(r.T, r.Host))
	for _, family := range []string{"ip", "ip6"} {
		if table, err := r.Run("nft", "list", "table", family, "libvirt_network"); err == nil {
			rules += changing.ReplaceAllString(table, "")
		}
	}
	return strings.Join(rig.Sorted(strings.Split(rules, "\n")), "\n")
}

// awaitLibvirts waits until libvirt's rules are as they were.
func awaitLibvirts(r *rig.Rig, what, want string) {
	r.T.Helper()
	r.Until("libvirt's rules are as without the service: "+what, func() bool { return libvirtsRules(r) == want })
}

// libvirtFindings returns Diagnose's findings about a network and libvirt, by Id, with
// the remedies.
func libvirtFindings(r *rig.Rig, name string) map[string]string {
	r.T.Helper()
	var all []map[string]godbus.Variant
	r.OK(r.Manager("Diagnose"), &all)
	found := map[string]string{}
	for _, f := range all {
		if id := f["Id"].Value().(string); f["Network"].Value() == name && strings.HasPrefix(id, "libvirt-") {
			found[id] = f["Remedy"].Value().(string)
		}
	}
	return found
}

// leases has a guest ask for an address as it would at its start.
func leases(t *testing.T, guest *host.Peer, when string) {
	t.Helper()
	guest.Must("ip", "-4", "addr", "flush", "dev", "eth0")
	guest.Must("udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2")
	if out := guest.Must("ip", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "inet 192.168.122.1") {
		t.Errorf("%s: no address after DHCP:\n%s", when, out)
	}
	guest.Must("ip", "-4", "addr", "flush", "dev", "eth0")
	guest.Must("ip", "addr", "add", "192.168.122.10/24", "dev", "eth0")
	guest.Must("ip", "route", "replace", "default", "via", "192.168.122.1")
}

// pinged checks that the guest reaches the host and the internet.
func pinged(t *testing.T, guest, internet *host.Peer, when string) {
	t.Helper()
	for _, to := range []string{rig.Internet4, rig.Internet6} {
		if out := host.Try(guest, internet, host.Probe{Proto: host.ICMP, To: netip.AddrPortFrom(netip.MustParseAddr(to), 0)}); !out.Reached {
			t.Errorf("%s: ping to %s: %v", when, to, out)
		}
	}
}

// TestLibvirtsRulesStay: a network that libvirt has is governed too, with each
// backend. Over everything that libvirt does meanwhile its rules are the very
// ones that it has by itself, the network is active, and guests are served.
func TestLibvirtsRulesStay(t *testing.T) {
	t.Parallel()
	for _, place := range places(t) {
		for _, backend := range []string{"nftables", "iptables"} {
			t.Run(place+" and "+backend, func(t *testing.T) {
				t.Parallel()
				r, p := besideRig(t, place, backend)
				alone := libvirtsRules(r)
				first, second := p.Dump(t, "first"), p.Dump(t, "second")
				r.StartDaemon()
				r.OK(r.AddXML(first))
				r.AwaitState("first", "active")
				guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
				internet := r.Internet()
				good := func(what string) {
					t.Helper()
					awaitLibvirts(r, what, alone)
					r.AwaitState("first", "active")
					rig.Natted(t, guest, internet, what)
					rig.Guarded(t, guest, internet, what)
					pinged(t, guest, internet, what)
				}
				good("the first is added")
				r.OK(r.AddXML(second))
				leases(t, guest, "both are added")
				good("both are added")
				for _, s := range shakes(t, p, place, guest) {
					s.shake()
					good(s.what)
					r.OK(r.Manager("Reapply"))
					awaitLibvirts(r, s.what+", then Reapply", alone)
				}
				if got := fmt.Sprint(libvirtFindings(r, "first")); got != "map[libvirt-has-network:]" {
					t.Errorf("findings: %s", got)
				}
				r.StopDaemon()
				r.StartDaemon()
				good("the service started again")
				r.OK(r.Manager("RemoveNetwork", "second", rig.Opts()))
				good("the second is removed")
				r.OK(r.Manager("RemoveNetwork", "first", rig.Opts()))
				awaitLibvirts(r, "both are removed", alone)
				rig.Natted(t, guest, internet, "both are removed")
				leases(t, guest, "both are removed")
				if own := r.Table() + ownChains(r); own != "" {
					t.Errorf("ours are left behind:\n%s", own)
				}
			})
		}
	}
}

// ownChains returns the lines of the service's own chains in iptables.
func ownChains(r *rig.Rig) string {
	var b strings.Builder
	for line := range strings.Lines(rig.SavedRules(r.T, r.Host)) {
		if strings.Contains(line, "VIRTFW_") && !strings.Contains(line, "VIRTFW_DHCP") {
			b.WriteString(line)
		}
	}
	return b.String()
}

type shake struct {
	what  string
	shake func()
}

// shakes are what libvirt does by itself and what is done to it.
func shakes(t *testing.T, p *rig.Libvirt, place string, guest *host.Peer) []shake {
	lose := []string{"iptables", "-w", "-F", "LIBVIRT_FWX"}
	if place == "nftables" {
		lose = []string{"nft", "flush", "chain", "ip", "libvirt_network", "guest_cross"}
	}
	return []shake{
		{"a network starts anew", func() {
			for _, verb := range []string{"net-destroy", "net-start"} {
				_, err := p.Virsh(verb, "first")
				rig.Must(t, err)
			}
			p.Must("ip", "link", "set", guest.Port(), "master", "virbr0", "up")
		}},
		{"SIGHUP", func() {
			p.Must(lose...) // so that it is seen when the reload has put them back
			rig.Must(t, p.Daemon.Signal(syscall.SIGHUP))
		}},
		{"the daemon starts anew", func() {
			rig.Must(t, p.Daemon.Stop())
			p.StartDaemon(t)
		}},
		{"the daemon is killed", func() { p.Kill() }},
		{"the daemon is back", func() { p.StartDaemon(t) }},
	}
}

// TestLibvirtsRulesAreMissed: if libvirt's rules were removed, as earlier
// versions did, the finding's remedy restores them at once.
func TestLibvirtsRulesAreMissed(t *testing.T) {
	t.Parallel()
	r, p := besideRig(t, "nft", "nftables")
	alone := libvirtsRules(r)
	r.StartDaemon()
	r.OK(r.AddXML(p.Dump(t, "first")))
	for _, chain := range []string{"INP", "OUT", "FWX", "FWI", "FWO"} {
		r.Must("iptables", "-w", "-F", "LIBVIRT_"+chain)
	}
	r.OK(r.Manager("Reapply"))
	missed := func() bool { return libvirtFindings(r, "first")["libvirt-rules-missing"] != "" }
	r.Until("the rules are missed", missed)
	if state, reason := r.State("first"); state != "active" {
		t.Errorf("the network is %s: %s", state, reason)
	}
	if remedy := libvirtFindings(r, "first")["libvirt-rules-missing"]; !strings.Contains(remedy, "systemctl reload libvirtd") {
		t.Errorf("the remedy is: %s", remedy)
	}
	rig.Must(t, p.Daemon.Signal(syscall.SIGHUP)) // that is what systemctl reload does
	awaitLibvirts(r, "the remedy was followed", alone)
	r.Until("they are missed no longer", func() bool { return !missed() })
}

// TestLibvirtStartsWhatIsGoverned: with the iptables backend libvirt starts and
// stops a network that the service has already. libvirt's rules are there once,
// and the service's are in force before, meanwhile and after.
func TestLibvirtStartsWhatIsGoverned(t *testing.T) {
	t.Parallel()
	for _, variant := range rig.IptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r, p := besideRig(t, variant, "iptables")
			both := libvirtsRules(r)
			r.StartDaemon()
			for _, round := range []string{"first", "second"} {
				_, err := p.Virsh("net-destroy", "second")
				rig.Must(t, err)
				if round == "first" {
					r.OK(r.AddXML(secondXML))
				}
				r.AwaitState("second", "waiting")
				// The same chains, the same rules: as libvirt would have it.
				awaitLibvirts(r, round+" round, governed alone", both)
				r.Until("there are no chains beside libvirt's", func() bool { return ownChains(r) == "" })
				_, err = p.Virsh("net-start", "second")
				rig.Must(t, err)
				r.Until("ours move beside libvirt's", func() bool { return strings.Count(ownChains(r), "-i virbr1 -o virbr1 -j ACCEPT") == 2 })
				awaitLibvirts(r, round+" round, started", both)
				r.AwaitState("second", "active")
			}
			r.OK(r.Manager("RemoveNetwork", "second", rig.Opts()))
			awaitLibvirts(r, "removed", both)
			_, err := p.Virsh("net-destroy", "second")
			rig.Must(t, err)
			_, err = p.Virsh("net-start", "second")
			rig.Must(t, err)
			awaitLibvirts(r, "started without the service", both)
		})
	}
}

// TestLibvirtsRulesStayBesideFirewalld: firewalld's reload has libvirt write its
// rules again, and empties iptables for that. A network that is removed here stays
// libvirt's, in its zone.
func TestLibvirtsRulesStayBesideFirewalld(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			// firewalld's reloads and libvirt's write to the same tables at once.
			r.Announce("binding a bridge to its zone")
			r.Firewalld.SetZones(rig.AllZones...)
			rig.SetIptables(r.Host, "nft")
			r.Firewalld.Start("nftables")
			_, p := libvirtBeside(t, r, "nft", backend)
			alone := libvirtsRules(r)
			r.StartDaemon()
			r.OK(r.AddXML(p.Dump(t, "first")))
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
			for _, what := range []string{"--state", "--reload", "--complete-reload"} {
				r.Must("firewall-cmd", what)
				awaitLibvirts(r, what, alone)
				r.Firewalld.AwaitZone("first", "virbr0", "libvirt")
				r.AwaitState("first", "active")
				rig.Natted(t, guest, internet, what)
				rig.Guarded(t, guest, internet, what)
			}
			r.OK(r.Manager("RemoveNetwork", "first", rig.Opts()))
			awaitLibvirts(r, "removed", alone)
			rig.Natted(t, guest, internet, "removed")
			if zone := strings.TrimSpace(r.Must("firewall-cmd", "--get-zone-of-interface=virbr0")); zone != "libvirt" {
				t.Errorf("removed, the bridge is in zone %s", zone)
			}
		})
	}
}

const closedXML = "<network><name>closed</name><bridge name='virbr9' stp='off'/><ip address='10.9.0.1' prefix='24'/></network>"

// TestGuestsOverLibvirtsReloads: at each reload libvirt takes its rules out and
// puts them back, one by one. An isolated guest gets nothing out meanwhile; with
// the iptables backend, whose rules stand before libvirt's, another loses nothing.
func TestGuestsOverLibvirtsReloads(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r, p := besideRig(t, "nft", backend)
			rig.Must(t, p.StartNetwork("closed", closedXML))
			alone := libvirtsRules(r)
			r.StartDaemon()
			for _, name := range []string{"first", "closed"} {
				r.OK(r.AddXML(p.Dump(t, name)))
				r.AwaitState(name, "active")
			}
			guest, lone := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Guest("virbr9", "lone", "10.9.0.10/24")
			internet := r.Internet()
			r.Until("ours are there", func() bool { return backend == "nftables" || strings.Contains(ownChains(r), "virbr9") })
			out, err := host.StartStream(lone, internet, host.StreamConfig{To: netip.MustParseAddrPort(rig.Internet4 + ":7777"), Rate: 500})
			rig.Must(t, err)
			flow, err := host.StartStream(guest, internet, host.StreamConfig{To: netip.MustParseAddrPort(rig.Internet4 + ":7778"), Rate: 500})
			rig.Must(t, err)
			for range 5 {
				p.Must("iptables", "-w", "-F", "LIBVIRT_FWX")
				rig.Must(t, p.Daemon.Signal(syscall.SIGHUP))
				awaitLibvirts(r, "a reload", alone)
			}
			closed, open := out.Stop(), flow.Stop()
			t.Logf("isolated: %v; nat: %v", closed, open)
			if closed.Received > 0 || closed.Sent < 100 {
				t.Errorf("of an isolated guest: %v", closed)
			}
			if backend == "iptables" && (open.Lost > 0 || open.SendErrors > 0) || open.Received < 100 {
				t.Errorf("of a guest: %v", open)
			}
		})
	}
}
