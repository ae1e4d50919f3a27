package network

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// cmpAddr compares addresses and prefixes as values.
var cmpAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// valid draws any valid network.
func valid(t *rapid.T) Network {
	n := Network{
		Name:       rapid.Custom(drawName).Draw(t, "name"),
		Bridge:     rapid.StringMatching(`v[a-zA-Z0-9_.\-=#'&<>ß]{1,6}`).Draw(t, "bridge"),
		Mode:       rapid.SampledFrom([]Mode{ModeNAT, ModeRoute, ModeOpen, ModeIsolated}).Draw(t, "mode"),
		IPv6Guests: rapid.Bool().Draw(t, "guests"),
		Zone:       rapid.SampledFrom([]string{"", "libvirt", "custom/zone", "zöne_1"}).Draw(t, "zone"),
		DHCP:       rapid.Bool().Draw(t, "dhcp"),
		DNS:        rapid.Bool().Draw(t, "dns"),
		TFTP:       rapid.Bool().Draw(t, "tftp"),
	}
	n.UUID = deriveUUID(rapid.String().Draw(t, "uuid"))
	for i := range rapid.IntRange(0, MaxAddresses).Draw(t, "addresses") {
		n.Addresses = append(n.Addresses, drawSubnet(t, byte(i)))
	}
	for i := range rapid.IntRange(0, MaxRoutes).Draw(t, "routes") {
		n.Routes = append(n.Routes, drawSubnet(t, byte(100+i)).Masked())
	}
	if n.Mode == ModeNAT || n.Mode == ModeRoute {
		for i := range rapid.IntRange(0, 3).Draw(t, "devices") {
			n.Devices = append(n.Devices, "eth."+string(rune('0'+i)))
		}
	}
	if n.Mode == ModeNAT {
		drawNAT(t, &n)
	}
	return n.normal()
}

func drawName(t *rapid.T) string {
	s := rapid.StringOfN(rapid.Rune(), 1, 30, MaxNameBytes).Draw(t, "text")
	if validateName(s) != nil {
		return "n" + Escape(s)[:min(3, len(s))]
	}
	return s
}

func drawSubnet(t *rapid.T, i byte) netip.Prefix {
	host := rapid.Byte().Draw(t, "host")
	if rapid.Bool().Draw(t, "ipv6") {
		addr := netip.AddrFrom16([16]byte{0xfd, 0, 0, i, 15: host})
		return netip.PrefixFrom(addr, rapid.IntRange(32, 128).Draw(t, "bits"))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, host}), rapid.IntRange(16, 32).Draw(t, "bits"))
}

func drawNAT(t *rapid.T, n *Network) {
	if rapid.Bool().Draw(t, "pool") {
		first, size := rapid.Byte().Draw(t, "first"), rapid.Byte().Draw(t, "size")
		n.NATAddresses = AddrRange{netip.AddrFrom4([4]byte{198, 51, 0, first}), netip.AddrFrom4([4]byte{198, 51, 1, size})}
	}
	if n.NATIPv6 = rapid.Bool().Draw(t, "natipv6"); n.NATIPv6 && rapid.Bool().Draw(t, "pool6") {
		n.NATAddresses6 = AddrRange{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2:1")}
	}
	if rapid.Bool().Draw(t, "ports") {
		a, b := rapid.Uint16Min(1).Draw(t, "a"), rapid.Uint16Min(1).Draw(t, "b")
		n.NATPorts = PortRange{min(a, b), max(a, b)}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := valid(t)
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		doc, err := n.XML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := FromXML(doc)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		set, err := FromSettings(n.Name, n.Settings())
		if err != nil {
			t.Fatal(err)
		}
		set.UUID = n.UUID
		for _, got := range []Network{again, set} {
			if diff := cmp.Diff(n, got, cmpAddr); diff != "" || !n.Equal(got) {
				t.Fatalf("(-want +got):\n%s\n%s", diff, doc)
			}
		}
	})
}

func TestEqualSeesEveryField(t *testing.T) {
	base := Network{Name: "n", UUID: deriveUUID("n"), Bridge: "virbr0", Mode: ModeNAT}
	fields := reflect.TypeFor[Network]()
	for i := range fields.NumField() {
		other := base
		f := reflect.ValueOf(&other).Elem().Field(i)
		switch f.Interface().(type) {
		case string, Mode:
			f.SetString("other")
		case bool:
			f.SetBool(true)
		case []string:
			f.Set(reflect.ValueOf([]string{"x"}))
		case []netip.Prefix:
			f.Set(reflect.ValueOf([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}))
		case AddrRange:
			f.Set(reflect.ValueOf(AddrRange{First: netip.MustParseAddr("10.0.0.1")}))
		case PortRange:
			f.Set(reflect.ValueOf(PortRange{First: 1, Last: 2}))
		default:
			t.Fatalf("add field %s to this test", fields.Field(i).Name)
		}
		if base.Equal(other) || other.Equal(base) || !other.Equal(other) {
			t.Errorf("Equal does not see %s", fields.Field(i).Name)
		}
	}
}

func TestEqualTakesTheDefaultPortsForNone(t *testing.T) {
	a := Network{NATPorts: PortRange{First: 1024, Last: 65535}, Devices: []string{}}
	if !a.Equal(Network{}) {
		t.Error("the default port range differs from none")
	}
}

func TestValidateValue(t *testing.T) {
	good := Network{Name: "n", UUID: deriveUUID("n"), Bridge: "virbr0", Mode: ModeNAT}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	pfx, addr := netip.MustParsePrefix, netip.MustParseAddr
	for name, change := range map[string]func(*Network){
		"no UUID":            func(n *Network) { n.UUID = "" },
		"upper-case UUID":    func(n *Network) { n.UUID = strings.ToUpper(n.UUID) },
		"no mode":            func(n *Network) { n.Mode = "" },
		"mode bridge":        func(n *Network) { n.Mode = "bridge" },
		"no prefix":          func(n *Network) { n.Addresses = []netip.Prefix{{}} },
		"route, unmasked":    func(n *Network) { n.Routes = []netip.Prefix{pfx("10.0.0.1/8")} },
		"half a range":       func(n *Network) { n.NATAddresses.First = addr("192.0.2.1") },
		"other half":         func(n *Network) { n.NATAddresses.Last = addr("192.0.2.1") },
		"IPv6 in the pool":   func(n *Network) { n.NATAddresses = AddrRange{addr("fd00::1"), addr("fd00::2")} },
		"IPv4 in the 6 pool": func(n *Network) { n.NATIPv6, n.NATAddresses6 = true, AddrRange{addr("192.0.2.1"), addr("192.0.2.2")} },
		"scope in the pool":  func(n *Network) { n.NATIPv6, n.NATAddresses6 = true, AddrRange{addr("fd00::1%a"), addr("fd00::2%a")} },
		"port 0":             func(n *Network) { n.NATPorts = PortRange{0, 5} },
		"ports backwards":    func(n *Network) { n.NATPorts = PortRange{6, 5} },
		"name not UTF-8":     func(n *Network) { n.Name = "a\xff" },
		"name not in XML":    func(n *Network) { n.Name = "a\uffff" },
		"C1 control":         func(n *Network) { n.Name = "a\u0085" },
		"bridge not UTF-8":   func(n *Network) { n.Bridge = "a\xff" },
		"zone not UTF-8":     func(n *Network) { n.Zone = "a\xff" },
	} {
		n := good
		change(&n)
		err := n.Validate()
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error is %v", name, err)
			continue
		}
		checkMessage(t, err)
		if _, err := n.XML(); err == nil {
			t.Errorf("%s: written as XML", name)
		}
	}
}

func TestNamesAccepted(t *testing.T) {
	for _, name := range []string{"default", "a b", " x ", "...", "Grüße", "net\u2028x", strings.Repeat("x", 128), "'<&>'"} {
		n := Network{Name: name, UUID: deriveUUID(name), Bridge: "virbr0", Mode: ModeOpen}
		roundTrip(t, n)
	}
	for _, name := range []string{"br-0123456789ab", "virbr0", "br.10", "a*b", "+x", "brücke", "-", "$", "a'b"} {
		if err := validateIfName("Bridge", name); err != nil {
			t.Error(err)
		}
	}
	for _, zone := range []string{"", "libvirt", "libvirt-routed", "seventeen-chars-z", "a/b", "zöne"} {
		if err := validateZone(zone); err != nil {
			t.Error(err)
		}
	}
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"default": "default", "a-b": "a_2db", "_": "_5f", "": "", "ä": "_c3_a4", "a b.c": "a_20b_2ec",
	} {
		if got := Escape(name); got != want {
			t.Errorf("Escape(%q) = %q, want %q", name, got, want)
		}
	}
	for _, s := range []string{"_", "_2", "a-b", "_2D", "_zz", "_61", "ä", "_2d_"} {
		if got, ok := Unescape(s); ok {
			t.Errorf("Unescape(%q) = %q", s, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOf(rapid.Byte()).Draw(t, "name"))
		if got, ok := Unescape(Escape(name)); !ok || got != name {
			t.Fatalf("%q came back as %q, %v", name, got, ok)
		}
		s := rapid.StringMatching(`[a-z0-9_]*`).Draw(t, "escaped")
		if name, ok := Unescape(s); ok && Escape(name) != s {
			t.Fatalf("%q is a second form of %q", s, name)
		}
	})
}
