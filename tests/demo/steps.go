package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	busName  = "org.virtfirewall.NetworkFirewall1"
	manager  = "/org/virtfirewall/NetworkFirewall1"
	fetchURL = "http://www.example.net/"
)

type demo struct {
	host            *host.Host
	guest, internet *host.Peer
	out             *printer
	address         string // the guest's, once it has one
}

// runner is a node that commands run in.
type runner interface {
	Run(args ...string) (string, error)
}

// step is one command and what must be true of its answer.
type step struct {
	what  string
	where string // "" on the host
	on    runner
	cmd   []string
	check func(output string, err error) error
}

// play runs all steps and counts those that were not as they should be.
func (d *demo) play() (failed int) {
	h := d.host
	d.out.step("the service starts and takes its name on the system bus", "", []string{"virtfirewalld", "&"})
	h.Start("virtfirewalld", "/usr/sbin/virtfirewalld")
	h.AwaitName(busName)
	d.out.result("", nil)
	for _, act := range []func() []step{d.network, d.life, d.outside, d.views} {
		for _, s := range act() {
			if !d.run(s) {
				failed++
			}
		}
	}
	return failed
}

func (d *demo) run(s step) bool {
	d.out.step(s.what, s.where, s.cmd)
	output, err := s.on.Run(s.cmd...)
	if s.check != nil {
		err = s.check(output, err)
	}
	d.out.result(output, err)
	return err == nil
}

// network hands the network over, as any D-Bus client would.
func (d *demo) network() []step {
	add := `busctl call ` + busName + ` ` + manager + ` ` + busName + ` AddNetworkFromXML 'sa{sv}' "$(cat /root/default.xml)" 0`
	state := []string{"busctl", "get-property", busName, manager + "/network/default", busName + ".Network"}
	return []step{
		{what: "firewalld gets libvirt's zones, if it lacks them", on: d.host, cmd: []string{"virtfirewallctl", "zones", "install"}},
		{what: "libvirt's default network is handed over", on: d.host, cmd: []string{"sh", "-c", add}, check: contains(manager + "/network/default")},
		{what: "it is in force", on: d.host, cmd: append(state, "State"), check: contains("active")},
	}
}

// life returns steps that check what a guest expects of its network.
func (d *demo) life() []step {
	return []step{
		{what: "the guest gets an address by DHCP", where: "guest", on: d.guest, cmd: []string{"udhcpc", "-i", "eth0", "-n", "-q", "-t", "10"}, check: d.lease},
		{what: "it resolves a name", where: "guest", on: d.guest, cmd: []string{"getent", "ahostsv4", "www.example.net"}, check: contains("203.0.113.1")},
		{what: "it fetches a page from the internet, through NAT", where: "guest", on: d.guest,
			cmd: []string{"curl", "-sS", "--max-time", "5", fetchURL}, check: contains("hello from the internet")},
		{what: "the web server saw the host's address, not the guest's", on: d.host,
			cmd: []string{"conntrack", "-L", "-p", "tcp", "--dport", "80"}, check: d.translated},
	}
}

// outside returns steps that check which connections may come in.
func (d *demo) outside() []step {
	connect := []string{"socat", "-u", "TCP:" + d.address + ":22,connect-timeout=3", "-"}
	return []step{
		{what: "the host reaches the guest's port 22", on: d.host, cmd: connect, check: contains("SSH-2.0-guest")},
		{what: "the internet does not, though it knows a route", where: "internet", on: d.internet, cmd: connect, check: refused},
	}
}

// views returns steps that check what an administrator sees.
func (d *demo) views() []step {
	return []step{
		{what: "the rules", on: d.host, cmd: []string{"virtfirewallctl", "rules", "default"}, check: contains("may_leave4_id")},
		{what: "the zone", on: d.host, cmd: []string{"firewall-cmd", "--get-zone-of-interface=virbr0"}, check: contains("libvirt")},
		{what: "the counters", on: d.host, cmd: []string{"virtfirewallctl", "counters", "default"}, check: nonEmpty},
		{what: "the network", on: d.host, cmd: []string{"virtfirewallctl", "list"}, check: contains("default")},
	}
}

func contains(want string) func(string, error) error {
	return func(output string, err error) error {
		if err == nil && !strings.Contains(output, want) {
			return fmt.Errorf("%q is not in it", want)
		}
		return err
	}
}

func nonEmpty(output string, err error) error {
	if err == nil && strings.TrimSpace(output) == "" {
		return errors.New("nothing came back")
	}
	return err
}

// refused wants the connection to fail, and at once: not by time running out.
func refused(output string, err error) error {
	if err == nil {
		return errors.New("the connection was accepted")
	}
	if !strings.Contains(output, "Connection refused") && !strings.Contains(output, "No route") {
		return fmt.Errorf("it failed in another way: %w", err)
	}
	return nil
}

var addressLine = regexp.MustCompile(`inet (192\.168\.122\.\d+)/`)

// lease takes the guest's address from its interface.
func (d *demo) lease(_ string, err error) error {
	if err != nil {
		return err
	}
	for range 20 {
		output, err := d.guest.Run("ip", "-4", "addr", "show", "dev", "eth0")
		if err != nil {
			return err
		}
		if m := addressLine.FindStringSubmatch(output); m != nil {
			d.address = m[1]
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("eth0 has no address of 192.168.122.0/24")
}

// translated looks for a connection from the guest whose answers go to the
// host's own address.
func (d *demo) translated(output string, err error) error {
	if err == nil && (!strings.Contains(output, "src="+d.address) || !strings.Contains(output, "dst=203.0.113.2")) {
		return errors.New("no translated connection of the guest")
	}
	return err
}
