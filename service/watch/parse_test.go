package watch

import (
	"encoding/hex"
	"testing"
)

// Messages of Linux 6.18: a bridge, an IPv4 address, a default route.
var messages = []string{
	"00000100050000000210000000000000" + "0b0003007669726272300000" + "100012800b0001006272696467650000",
	"0218800007000000080001000a000001080002000a000001",
	"02000000fe03000100000000" + "0c0009000800000007000000",
}

func TestParse(t *testing.T) {
	body := func(i int) []byte {
		b, err := hex.DecodeString(messages[i])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if l, ok := parseLink(body(0)); !ok || l != (Link{Index: 5, Name: "virbr0", Bridge: true}) {
		t.Errorf("link: %+v, %v", l, ok)
	}
	port := body(0)
	port[0] = 7 // AF_BRIDGE
	if l, ok := parseLink(port); ok {
		t.Errorf("a bridge port's message is taken for a link's: %+v", l)
	}
	if a, ok := parseAddress(body(1)); !ok || a.Index != 7 || a.Prefix.String() != "10.0.0.1/24" || a.Peer.IsValid() {
		t.Errorf("address: %+v, %v", a, ok)
	}
	if r := parseDefaultRoute(body(2)); len(r) != 1 || r[0].Index != 7 {
		t.Errorf("route: %+v", r)
	}
}

// No message, however broken, makes a parser fail or read past its end.
func FuzzParse(f *testing.F) {
	for _, m := range messages {
		b, err := hex.DecodeString(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLink(b); ok && (l.Index <= 0 || l.Name == "") {
			t.Errorf("a link without index or name: %+v", l)
		}
		if a, ok := parseAddress(b); ok && !a.Prefix.IsValid() {
			t.Errorf("an address that is none: %+v", a)
		}
		for _, r := range parseDefaultRoute(b) {
			if r.Index <= 0 {
				t.Errorf("a route without interface: %+v", r)
			}
		}
		errorNumber(b)
	})
}
