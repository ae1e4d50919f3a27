package host_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func TestBusFromOutsideAndInside(t *testing.T) {
	h := host.New(t)
	began := time.Now()
	h.Bus()
	t.Logf("the bus took %s", time.Since(began))
	conn := dialledAsRoot(t, h)
	out := h.Must("busctl", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetConnectionUnixUser", "s", conn.Names()[0])
	if strings.TrimSpace(out) != "u 0" {
		t.Errorf("inside, our connection is %q", out)
	}
	out, err := h.RunAs(2001, "busctl", "--no-pager", "list")
	if err != nil || !strings.Contains(out, "2001") {
		t.Errorf("as a user: %q, %v", out, err)
	}
}

// dialledAsRoot returns a connection from outside to the host's bus, which takes it
// for root's.
func dialledAsRoot(t *testing.T, h *host.Host) *dbus.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(time.Minute))
	t.Cleanup(cancel) // the connection ends with it
	conn, err := h.DialBus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var uid uint32
	call := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, conn.Names()[0])
	if err := call.Store(&uid); err != nil || uid != 0 {
		t.Errorf("the bus takes us for uid %d, %v", uid, err)
	}
	return conn
}

func TestPolkitDecides(t *testing.T) {
	h := host.New(t)
	h.Bus()
	h.Polkit()
	const check = "pkcheck --action-id org.freedesktop.policykit.exec --process $$"
	_, err := h.RunAs(2001, "sh", "-c", check)
	var exit *exec.ExitError
	const needsAgent = 2 // exit code of pkcheck: an administrator would have to log in
	if !errors.As(err, &exit) || exit.ExitCode() != needsAgent {
		t.Errorf("a user asking to run programs as another: %v", err)
	}
	if _, err := h.Run("sh", "-c", check); err != nil {
		t.Error(err)
	}
}

func TestFirewalld(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := host.New(t)
			h.Bus()
			began := time.Now()
			p := h.Firewalld(backend)
			t.Logf("firewalld took %s", time.Since(began))
			if out := h.Must("firewall-cmd", "--state"); strings.TrimSpace(out) != "running" {
				t.Errorf("firewall-cmd says %q", out)
			}
			rules := h.Must("sh", "-c", "nft list tables; iptables-save")
			if got := strings.Contains(rules, "inet firewalld"); got != (backend == "nftables") {
				t.Errorf("nftables in use: %v\n%s", got, rules)
			}
			if got := strings.Contains(rules, "IN_public"); got != (backend == "iptables") {
				t.Errorf("iptables in use: %v\n%s", got, rules)
			}
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			if out, err := h.Run("firewall-cmd", "--state"); err == nil {
				t.Errorf("still running after Stop: %q", out)
			}
			h.Firewalld(backend)
		})
	}
}

func TestDnsmasqServesGuests(t *testing.T) {
	h := host.New(t)
	h.Bridge("virbr0", "192.168.122.1/24", "fd00:122::1/64")
	h.Dnsmasq("virbr0")
	guest := h.Guest("virbr0", "guest")
	out := guest.Must("busybox", "udhcpc", "-n", "-q", "-f", "-t", "5", "-T", "1", "-i", "eth0", "-s", "/bin/true")
	if !strings.Contains(out, "lease of 192.168.122.") || !strings.Contains(out, "obtained from 192.168.122.1") {
		t.Errorf("got %q", out)
	}
	guest.Must("ip", "addr", "add", "192.168.122.10/24", "dev", "eth0")
	guest.Must("sh", "-c", "echo nameserver 192.168.122.1 >/etc/resolv.conf")
	if out := guest.Must("busybox", "nslookup", "-type=a", "gateway"); !strings.Contains(out, "Address: 192.168.122.1") {
		t.Errorf("got %q", out)
	}
}

func TestTopology(t *testing.T) {
	h := host.New(t, host.WithForwarding())
	h.Internet()
	h.Bridge("virbr0", "192.168.122.1/24", "fd00:122::1/64")
	h.Bridge("virbr1", "10.1.0.1/16")
	h.Guest("virbr0", "a", "192.168.122.10/24", "fd00:122::10/64")
	b := h.Guest("virbr1", "b", "10.1.2.3/16")
	lan := h.Lan()
	h.RouteBack("172.16.0.0/12")
	internet := h.Internet() // asked for again: the same
	for _, p := range []*host.Peer{internet, lan} {
		routes := p.Must("ip", "route") + p.Must("ip", "-6", "route")
		for _, want := range []string{"192.168.122.0/24 via ", "fd00:122::/64 via ", "10.1.0.0/16 via ", "172.16.0.0/12 via "} {
			if !strings.Contains(routes, want) {
				t.Errorf("%s has no route %q:\n%s", p.Name(), want, routes)
			}
		}
	}
	if out := b.Must("ip", "route", "show", "default"); !strings.HasPrefix(out, "default via 10.1.0.1 ") {
		t.Errorf("the guest's default route is %q", out)
	}
	for _, to := range []string{"203.0.113.1:80", "198.51.100.1:80"} {
		server := map[bool]*host.Peer{true: internet, false: lan}[strings.HasPrefix(to, "203")]
		if r := host.Try(b, server, host.Probe{Proto: host.TCP, To: addrPort(to)}); !r.Reached {
			t.Errorf("to %s: %v", to, r)
		}
	}
	if out := h.Must("ip", "-d", "link", "show", "virbr0"); !strings.Contains(out, "stp_state 0") {
		t.Errorf("STP is on: %s", out)
	}
}
