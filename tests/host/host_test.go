package host_test

import (
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func TestStart(t *testing.T) {
	began := time.Now()
	h := host.New(t)
	t.Logf("a host took %s", time.Since(began))
	began = time.Now()
	t.Log(h.Must("sh", "-c", "id; hostname; cat /proc/self/cgroup; ls -l /proc/self/ns; mount; ps ax; env; pwd"))
	t.Logf("a command took %s", time.Since(began))
	h.Bridge("virbr0", "192.168.122.1/24", "fd00:122::1/64")
	began = time.Now()
	g := h.Guest("virbr0", "g1", "192.168.122.10/24", "fd00:122::10/64")
	h.Internet()
	h.Lan()
	t.Logf("nodes took %s", time.Since(began))
	t.Log(g.Must("sh", "-c", "ip -br a; ip r; ip -6 r; hostname; ls /sys/class/net"))
	t.Log(h.Internet().Must("ip", "r"))
	t.Log(h.RunAs(2001, "id"))
	t.Log(h.Run("sh", "-c", "echo 1 > /proc/sys/kernel/panic"))
	t.Log(h.Run("nosuch"))
	for _, f := range []func(){func() { h.Bus() }, func() { h.Polkit() }, func() { h.Firewalld("nftables") }, func() { h.Dnsmasq("virbr0") }} {
		began = time.Now()
		f()
		t.Logf("took %s", time.Since(began))
	}
	t.Log(h.Run("firewall-cmd", "--get-active-zones"))
	t.Log(g.Run("busybox", "udhcpc", "-n", "-q", "-f", "-i", "eth0", "-s", "/bin/true"))
	for _, p := range h.Processes() {
		t.Log(p.Name, p.Log())
	}
	began = time.Now()
	h.Close()
	t.Logf("close took %s", time.Since(began))
}
