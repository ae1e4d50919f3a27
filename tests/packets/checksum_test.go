package packets

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// hasCsum asks tc, and not the service, whether this kernel has the action.
func hasCsum(h *host.Host) bool {
	_, err := h.Run("tc", "actions", "add", "action", "csum", "udp", "index", "77")
	if err == nil {
		h.Must("tc", "actions", "del", "action", "csum", "index", "77")
	}
	return err == nil
}

// TestLeaseHasItsChecksum requests a lease from the real dnsmasq and checks what
// arrives: the checksum that the host leaves to a network card is filled in, by
// the kernel's tc action as libvirt does it, or by iptables if there is none.
func TestLeaseHasItsChecksum(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	csum := hasCsum(r.Host)
	r.Bridge("virbr0", rig.NatNet)
	r.Dnsmasq("virbr0")
	guest := r.Guest("virbr0", "guest")
	if before := leased(t, guest); !strings.Contains(before, "bad udp cksum") {
		t.Fatalf("checksums are right without the service, so that this shows nothing:\n%s", before)
	}
	r.OK(r.AddXML(withDHCP(rig.NetXML("default", "virbr0", "nat", rig.NatNet))))
	help := func() (tc, tables bool) {
		filters := r.Must("tc", "filter", "show", "dev", "virbr0", "egress")
		return strings.Contains(filters, "csum (iph, udp)"), strings.Contains(r.Must("iptables-save"), "--checksum-fill")
	}
	var tc, tables bool
	r.Until("there is help for DHCP", func() bool { tc, tables = help(); return tc || tables })
	t.Logf("this kernel has the tc action csum: %v", csum)
	if tc != csum || tables == csum {
		t.Errorf("help by tc is %v and by iptables %v, on a kernel where the tc action csum is there: %v", tc, tables, csum)
	}
	if got := leased(t, guest); strings.Contains(got, "bad udp cksum") || !strings.Contains(got, "udp sum ok") {
		t.Errorf("a reply arrives as:\n%s", got)
	}
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	r.Until("help for DHCP goes with the network", func() bool { tc, tables = help(); return !tc && !tables })
}

func withDHCP(xml string) string {
	const dhcp = "prefix='24'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>"
	return strings.Replace(xml, "prefix='24'/>", dhcp, 1)
}

// leased gets a lease and returns the server's replies as tcpdump reads them.
func leased(t *testing.T, guest *host.Peer) string {
	t.Helper()
	dump := guest.Start("tcpdump", "tcpdump", "-l", "-n", "-vv", "-i", "eth0", "udp and dst port 68")
	if !rig.Await(rig.CallTimeout, func() bool { return strings.Contains(dump.Log(), "listening on") }) {
		t.Fatalf("tcpdump does not listen: %s", dump.Log())
	}
	guest.Must("udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "2", "-s", "/bin/true")
	if !rig.Await(rig.CallTimeout, func() bool { return strings.Contains(dump.Log(), "DHCP-Message") }) {
		t.Fatalf("tcpdump saw no reply: %s", dump.Log())
	}
	rig.Must(t, dump.Stop())
	return dump.Log()
}
