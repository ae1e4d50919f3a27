package bus

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// remedy matches the part of a message that says what to do.
var remedy = regexp.MustCompile(`: .*\b(use|give|choose|leave out|remove|update|reload|pass|name another|start|list|change|split)\b`)

// numbered returns many of something: "10.0.0.1/24", "10.0.1.1/24" and so on.
func numbered(count int, format string) (out []string) {
	for i := range count {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// TestRefusals: each refusal has its own error, which says what to do instead,
// and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Internet()
	r.Lan()
	r.Bridge("virbr1", "10.1.0.1/24", "2001:db8:1::1/64")
	r.Must("ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1")
	r.OK(r.AddXML(rig.NetXML("one", "virbr1", "nat", "10.1.0.1/24", "2001:db8:1::1/64")))
	r.OK(r.AddXML(strings.Replace(rig.NetXML("two", "virbr2", "route", "10.2.0.1/24"), "</network>",
		"<route address='10.20.0.0' prefix='16' gateway='10.2.0.9'/></network>", 1)))
	before, names := rig.NFT(r.Host, "-a", "list", "ruleset"), r.Names()

	add := func(bridge string, ips ...string) *godbus.Call {
		return r.AddXML(rig.NetXML("new", bridge, "nat", ips...))
	}
	set := func(pairs ...any) *godbus.Call {
		return r.Manager("AddNetwork", "new", rig.Opts(append([]any{"Bridge", "virbr9"}, pairs...)...), rig.Opts())
	}
	update := func(pairs ...any) *godbus.Call { return r.Network("two", "Update", rig.Opts(pairs...), rig.Opts()) }
	long := strings.Replace(rig.Lasting("new", 9, "nat"), "<bridge", "<!--"+strings.Repeat("x", network.MaxXMLBytes)+"--><bridge", 1)
	cases := []struct {
		what, kind, word string
		call             *godbus.Call
	}{
		{"XML over 1 MiB", "LimitExceeded", "1048576", r.AddXML(long)},
		{"65 addresses", "LimitExceeded", "64", add("virbr9", numbered(65, "10.9.%d.1/24")...)},
		{"65 addresses as settings", "LimitExceeded", "64", set("Addresses", numbered(65, "10.9.%d.1/24"))},
		{"65 routes", "LimitExceeded", "64", set("Addresses", []string{"10.9.0.1/24"}, "Routes", numbered(65, "10.10.%d.0/24"))},
		{"65 forward devices", "LimitExceeded", "64", set("ForwardMode", "nat", "ForwardDevices", numbered(65, "eth%d"))},
		{"65 addresses in Update", "LimitExceeded", "64", update("Addresses", numbered(65, "10.9.%d.1/24"))},
		{"bridge used twice", "BridgeInUse", "one", add("virbr1", "10.9.0.1/24")},
		{"waiting bridge used twice", "BridgeInUse", "two", add("virbr2", "10.9.0.1/24")},
		{"bridge of another in Update", "BridgeInUse", "one", update("Bridge", "virbr1")},
		{"the subnet of another", "SubnetOverlap", "one", add("virbr9", "10.1.0.7/24")},
		{"a part of it", "SubnetOverlap", "one", add("virbr9", "10.1.0.129/25")},
		{"all around it", "SubnetOverlap", "10.1.0.0/24", add("virbr9", "10.1.0.7/20")},
		{"IPv6 subnet of another", "SubnetOverlap", "one", add("virbr9", "2001:db8:1::9/64")},
		{"second subnet", "SubnetOverlap", "two", add("virbr9", "10.9.0.1/24", "10.2.0.9/24")},
		{"behind a guest of another", "SubnetOverlap", "two", add("virbr9", "10.20.5.1/24")},
		{"its own routes", "SubnetOverlap", "one", set("Addresses", []string{"10.9.0.1/24"}, "Routes", []string{"10.1.0.0/16"})},
		{"subnet of another in Update", "SubnetOverlap", "one", update("Addresses", []string{"10.1.0.1/24"})},
		{"the host's own subnet", "SubnetOverlap", "lan0", add("virbr9", "198.51.100.9/24")},
		{"the host's IPv6 subnet", "SubnetOverlap", "wan0", add("virbr9", "2001:db8:ffff::9/64")},
		{"the host's subnet in Update", "SubnetOverlap", "lan0", update("Addresses", []string{"198.51.100.9/24"})},
		{"no bridge", "InvalidArgument", "bridge", add("dummy0", "10.9.0.1/24")},
		{"no bridge in Update", "InvalidArgument", "bridge", update("Bridge", "dummy0")},
		{"the uplink", "InvalidArgument", "bridge", add("wan0", "10.9.0.1/24")},
		{"loopback subnet", "InvalidArgument", "127.", add("virbr9", "127.0.0.1/24")},
		{"too big a subnet", "InvalidArgument", "/8", add("virbr9", "10.0.0.1/7")},
		{"name taken", "NetworkExists", "one", r.AddXML(rig.Lasting("one", 9, "nat"))},
		{"unknown network", "NetworkNotFound", "nobody", r.Manager("RemoveNetwork", "nobody", rig.Opts())},
		{"zone without firewalld", "FirewalldNotRunning", "firewalld", set("Zone", "trusted")},
		{"not a bridge of ours", "NetworkNotFound", "wan0", r.Manager("BindInterface", "wan0", "")},
	}
	for _, c := range cases {
		r.WantRefusal(c.call, c.kind, c.word)
		if text := rig.Message(c.call); !remedy.MatchString(text) {
			t.Errorf("%s: the message does not say what to do: %s", c.what, text)
		}
	}
	rig.Same(t, "refusals changed the kernel", before, rig.NFT(r.Host, "-a", "list", "ruleset"))
	if fmt.Sprint(r.Names()) != fmt.Sprint(names) {
		t.Errorf("networks %q after refusals", r.Names())
	}
	r.OK(add("virbr9", numbered(64, "10.9.%d.1/24")...))
	r.OK(r.AddXML(strings.Replace(rig.Lasting("padded", 8, "nat"), "<bridge", "<!--"+strings.Repeat("x", network.MaxXMLBytes-400)+"--><bridge", 1)))
}

// TestDefaultRouteIsKept: a bridge that carries the host's default route is no
// network's, also not by Update.
func TestDefaultRouteIsKept(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("br0", "192.168.50.1/24")
	r.Must("ip", "route", "add", "default", "via", "192.168.50.254", "dev", "br0")
	r.OK(r.AddXML(rig.Lasting("one", 1, "nat")))
	for _, call := range []*godbus.Call{
		r.AddXML(rig.NetXML("host", "br0", "nat", "192.168.50.1/24")),
		r.Network("one", "Update", rig.Opts("Bridge", "br0", "Addresses", []string{"192.168.50.1/24"}), rig.Opts()),
	} {
		r.WantRefusal(call, "InvalidArgument", "br0", "default route", "use a bridge of the guests' own")
	}
}

// TestTooManyNetworks, whether calls or files bring them.
func TestTooManyNetworks(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce("a stored network is left out until its file is right")
	write := func(first, count int) {
		t.Helper()
		rig.Must(t, r.Inside(func() error {
			if err := os.MkdirAll(rig.NetworksDir, 0o755); err != nil {
				return err
			}
			for i := first; i < first+count; i++ {
				name := fmt.Sprintf("net%04d", i)
				if err := os.WriteFile(filepath.Join(rig.NetworksDir, name+".xml"), []byte(rig.NetXML(name, fmt.Sprintf("virbr%d", i), "open")), 0o644); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	write(0, network.MaxNetworks)
	r.StartDaemon()
	if n := len(r.Names()); n != network.MaxNetworks {
		t.Fatalf("%d networks were loaded", n)
	}
	r.WantRefusal(r.AddXML(rig.NetXML("more", "virbr9999", "isolated")), "LimitExceeded", "4096", "remove one first")
	r.WantRefusal(r.Manager("AddNetwork", "more", rig.Opts("Bridge", "virbr9999"), rig.Opts("Persistent", true)), "LimitExceeded", "4096")
	r.OK(r.AddXML(rig.NetXML("net0007", "virbr7", "isolated"), "Replace", true))
	r.OK(r.Network("net0008", "Update", rig.Opts("ForwardMode", "isolated"), rig.Opts()))
	write(network.MaxNetworks, 1)
	r.WantRefusal(r.Manager("Reload"), "LimitExceeded", "4097", "4096")
	r.Restart(true)
	if n := len(r.Names()); n != network.MaxNetworks {
		t.Errorf("%d networks were loaded of one too many", n)
	}
	r.OK(r.Manager("RemoveNetwork", "net0007", rig.Opts("Persistent", true)))
	r.OK(r.AddXML(rig.NetXML("more", "virbr9999", "nat", "10.99.0.1/24")))
}
