package tests

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// places are where the libvirt of a host can have its rules: in either variant
// of iptables, and, since 10.4, in nft tables of its own.
func places(t *testing.T) []string {
	t.Helper()
	h := host.New(t)
	if _, err := h.Run("test", "-e", "/etc/libvirt/network.conf"); err != nil {
		return iptablesVariants
	}
	return append([]string{"nftables"}, iptablesVariants...)
}

// besideRig is a host where libvirt has two networks, with its rules in a place,
// and where the service is not started yet. The service's settings say which
// backend it has, whatever libvirt's say.
func besideRig(t *testing.T, place, backend string) (*rig, *libvirtPeer) {
	t.Helper()
	return libvirtBeside(t, newRig(t), place, backend)
}

func libvirtBeside(t *testing.T, r *rig, place, backend string) (*rig, *libvirtPeer) {
	t.Helper()
	variant := place
	if place == "nftables" {
		variant = "nft"
	}
	setIptables(r.Host, variant)
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
	r.write(configFile, "firewall_backend = \""+backend+"\"\n")
	p := libvirtOn(t, r.Host)
	for _, xml := range []string{firstXML, secondXML} {
		fatal(t, p.run(nameIn(xml), xml))
	}
	return r, p
}

var changing = regexp.MustCompile(`counter packets \d+ bytes \d+ |iif \d+|oif \d+`)

// libvirtsRules are libvirt's own rules, wherever they are: in any order, since
// a reload takes networks in any, and each as often as it is there.
func (r *rig) libvirtsRules() string {
	r.t.Helper()
	rules := libvirts(savedRules(r.t, r.Host))
	for _, family := range []string{"ip", "ip6"} {
		if table, err := r.Run("nft", "list", "table", family, "libvirt_network"); err == nil {
			rules += changing.ReplaceAllString(table, "")
		}
	}
	return strings.Join(sorted(strings.Split(rules, "\n")), "\n")
}

// awaitLibvirts waits until libvirt's rules are as they were.
func (r *rig) awaitLibvirts(what, want string) {
	r.t.Helper()
	r.until("libvirt's rules are as without the service: "+what, func() bool { return r.libvirtsRules() == want })
}

// libvirtFindings are what Diagnose says of a network and libvirt, by Id, with
// the remedies.
func (r *rig) libvirtFindings(name string) map[string]string {
	r.t.Helper()
	var all []map[string]godbus.Variant
	r.must(r.Manager("Diagnose"), &all)
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
	for _, to := range []string{internet4, internet6} {
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
				alone := r.libvirtsRules()
				first, second := p.dump(t, "first"), p.dump(t, "second")
				r.StartDaemon()
				r.must(r.AddXML(first))
				r.AwaitState("first", "active")
				guest := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64")
				internet := r.Internet()
				good := func(what string) {
					t.Helper()
					r.awaitLibvirts(what, alone)
					r.AwaitState("first", "active")
					natted(t, guest, internet, what)
					guarded(t, guest, internet, what)
					pinged(t, guest, internet, what)
				}
				good("the first is added")
				r.must(r.AddXML(second))
				leases(t, guest, "both are added")
				good("both are added")
				for _, s := range p.shakes(t, place, guest) {
					s.shake()
					good(s.what)
					r.must(r.Manager("Reapply"))
					r.awaitLibvirts(s.what+", then Reapply", alone)
				}
				if got := fmt.Sprint(r.libvirtFindings("first")); got != "map[libvirt-has-network:]" {
					t.Errorf("findings: %s", got)
				}
				r.StopDaemon()
				r.StartDaemon()
				good("the service started again")
				r.must(r.Manager("RemoveNetwork", "second", opts()))
				good("the second is removed")
				r.must(r.Manager("RemoveNetwork", "first", opts()))
				r.awaitLibvirts("both are removed", alone)
				natted(t, guest, internet, "both are removed")
				leases(t, guest, "both are removed")
				if own := r.Table() + ownChains(r); own != "" {
					t.Errorf("ours are left behind:\n%s", own)
				}
			})
		}
	}
}

// ownChains are the lines of the service's own chains in iptables.
func ownChains(r *rig) string {
	var b strings.Builder
	for line := range strings.Lines(savedRules(r.t, r.Host)) {
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
func (p *libvirtPeer) shakes(t *testing.T, place string, guest *host.Peer) []shake {
	lose := []string{"iptables", "-w", "-F", "LIBVIRT_FWX"}
	if place == "nftables" {
		lose = []string{"nft", "flush", "chain", "ip", "libvirt_network", "guest_cross"}
	}
	return []shake{
		{"a network starts anew", func() {
			for _, verb := range []string{"net-destroy", "net-start"} {
				_, err := p.virsh(verb, "first")
				fatal(t, err)
			}
			p.Must("ip", "link", "set", guest.Port(), "master", "virbr0", "up")
		}},
		{"SIGHUP", func() {
			p.Must(lose...) // so that it is seen when the reload has put them back
			fatal(t, p.daemon.Signal(syscall.SIGHUP))
		}},
		{"the daemon starts anew", func() {
			fatal(t, p.daemon.Stop())
			p.start(t)
		}},
		{"the daemon is killed", func() { p.kill() }},
		{"the daemon is back", func() { p.start(t) }},
	}
}

// TestLibvirtsRulesAreMissed: where they were taken out, as earlier versions did,
// the finding says how to have them again at once, and that works.
func TestLibvirtsRulesAreMissed(t *testing.T) {
	t.Parallel()
	r, p := besideRig(t, "nft", "nftables")
	alone := r.libvirtsRules()
	r.StartDaemon()
	r.must(r.AddXML(p.dump(t, "first")))
	for _, chain := range []string{"INP", "OUT", "FWX", "FWI", "FWO"} {
		r.Must("iptables", "-w", "-F", "LIBVIRT_"+chain)
	}
	r.must(r.Manager("Reapply"))
	missed := func() bool { return r.libvirtFindings("first")["libvirt-rules-missing"] != "" }
	r.until("the rules are missed", missed)
	if state, reason := r.State("first"); state != "active" {
		t.Errorf("the network is %s: %s", state, reason)
	}
	if remedy := r.libvirtFindings("first")["libvirt-rules-missing"]; !strings.Contains(remedy, "systemctl reload libvirtd") {
		t.Errorf("the remedy is: %s", remedy)
	}
	fatal(t, p.daemon.Signal(syscall.SIGHUP)) // that is what systemctl reload does
	r.awaitLibvirts("the remedy was followed", alone)
	r.until("they are missed no longer", func() bool { return !missed() })
}

// TestLibvirtStartsWhatIsGoverned: with the iptables backend libvirt starts and
// stops a network that was governed before. Its rules are there once, and ours
// are in force before, meanwhile and after.
func TestLibvirtStartsWhatIsGoverned(t *testing.T) {
	t.Parallel()
	for _, variant := range iptablesVariants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r, p := besideRig(t, variant, "iptables")
			both := r.libvirtsRules()
			r.StartDaemon()
			for _, round := range []string{"first", "second"} {
				_, err := p.virsh("net-destroy", "second")
				fatal(t, err)
				if round == "first" {
					r.must(r.AddXML(secondXML))
				}
				r.AwaitState("second", "waiting")
				// The same chains, the same rules: as libvirt would have it.
				r.awaitLibvirts(round+" round, governed alone", both)
				r.until("there are no chains beside libvirt's", func() bool { return ownChains(r) == "" })
				_, err = p.virsh("net-start", "second")
				fatal(t, err)
				r.until("ours move beside libvirt's", func() bool { return strings.Count(ownChains(r), "-i virbr1 -o virbr1 -j ACCEPT") == 2 })
				r.awaitLibvirts(round+" round, started", both)
				r.AwaitState("second", "active")
			}
			r.must(r.Manager("RemoveNetwork", "second", opts()))
			r.awaitLibvirts("removed", both)
			_, err := p.virsh("net-destroy", "second")
			fatal(t, err)
			_, err = p.virsh("net-start", "second")
			fatal(t, err)
			r.awaitLibvirts("started without the service", both)
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
			r := newRig(t)
			// firewalld's reloads and libvirt's write to the same tables at once.
			r.Announce("binding a bridge to its zone")
			r.zoneFiles(allZones...)
			setIptables(r.Host, "nft")
			r.Firewalld("nftables")
			_, p := libvirtBeside(t, r, "nft", backend)
			alone := r.libvirtsRules()
			r.StartDaemon()
			r.must(r.AddXML(p.dump(t, "first")))
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24", "2001:db8:122::10/64"), r.Internet()
			for _, what := range []string{"--state", "--reload", "--complete-reload"} {
				r.Must("firewall-cmd", what)
				r.awaitLibvirts(what, alone)
				r.awaitZone("first", "virbr0", "libvirt")
				r.AwaitState("first", "active")
				natted(t, guest, internet, what)
				guarded(t, guest, internet, what)
			}
			r.must(r.Manager("RemoveNetwork", "first", opts()))
			r.awaitLibvirts("removed", alone)
			natted(t, guest, internet, "removed")
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
			fatal(t, p.run("closed", closedXML))
			alone := r.libvirtsRules()
			r.StartDaemon()
			for _, name := range []string{"first", "closed"} {
				r.must(r.AddXML(p.dump(t, name)))
				r.AwaitState(name, "active")
			}
			guest, lone := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Guest("virbr9", "lone", "10.9.0.10/24")
			internet := r.Internet()
			r.until("ours are there", func() bool { return backend == "nftables" || strings.Contains(ownChains(r), "virbr9") })
			out, err := host.StartStream(lone, internet, host.StreamConfig{To: netip.MustParseAddrPort(internet4 + ":7777"), Rate: 500})
			fatal(t, err)
			flow, err := host.StartStream(guest, internet, host.StreamConfig{To: netip.MustParseAddrPort(internet4 + ":7778"), Rate: 500})
			fatal(t, err)
			for range 5 {
				p.Must("iptables", "-w", "-F", "LIBVIRT_FWX")
				fatal(t, p.daemon.Signal(syscall.SIGHUP))
				r.awaitLibvirts("a reload", alone)
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
