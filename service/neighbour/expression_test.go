package neighbour

import (
	"net/netip"
	"testing"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// encoded returns the expressions of a rule as the kernel does.
func encoded(t testing.TB, list ...expr.Any) []byte {
	t.Helper()
	var out []netlink.Attribute
	for _, e := range list {
		data, err := expr.Marshal(unix.NFPROTO_IPV4, e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	data, err := netlink.MarshalAttributes(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func inIndex(op expr.CmpOp, index uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(index)},
	}
}

// source matches by an address with a mask, as older nft does.
func source(mask []byte, address ...byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address},
	}
}

func name(index uint32) string { return links{7: "virbr7"}.name(index) }

func TestDecode(t *testing.T) {
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	short := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{10, 2}},
	}
	subnet := netip.MustParsePrefix("10.2.0.0/16")
	for what, c := range map[string]struct {
		in   []expr.Any
		want rule
		ok   bool
	}{
		"whole bytes": {append(append(inIndex(expr.CmpOpEq, 7), short...), &expr.Counter{}, accept), rule{in: "virbr7", src: subnet, action: actionAccept}, true},
		"a mask":      {append(append(inIndex(expr.CmpOpEq, 7), source([]byte{255, 255, 0, 0}, 10, 2, 0, 0)...), accept), rule{in: "virbr7", src: subnet, action: actionAccept}, true},
		"odd bits":    {append(source([]byte{255, 240, 0, 0}, 172, 16, 0, 0), accept), rule{src: netip.MustParsePrefix("172.16.0.0/12"), action: actionAccept}, true},
		"a stranger":  {append(inIndex(expr.CmpOpEq, 8), accept), rule{in: "/8", action: actionAccept}, true},
		"a rejection": {append(inIndex(expr.CmpOpEq, 7), &expr.Reject{Code: 3}), rule{in: "virbr7", action: actionReject}, true},

		"a mask with holes":      {append(source([]byte{255, 0, 255, 0}, 10, 0, 2, 0), accept), rule{}, false},
		"bits behind the mask":   {append(source([]byte{255, 0, 0, 0}, 10, 2, 0, 0), accept), rule{}, false},
		"any but the interface":  {append(inIndex(expr.CmpOpNeq, 7), accept), rule{}, false},
		"two interfaces":         {append(append(inIndex(expr.CmpOpEq, 7), inIndex(expr.CmpOpEq, 7)...), accept), rule{}, false},
		"another register":       {append([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: 2}}, append(inIndex(expr.CmpOpEq, 7)[1:], accept)...), rule{}, false},
		"a comparison alone":     {append(inIndex(expr.CmpOpEq, 7)[1:], accept), rule{}, false},
		"the begin of a name":    {[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Register: 1, Data: []byte("virbr7")}, accept}, rule{}, false},
		"another key":            {[]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{0, 0, 0, 1}}, accept}, rule{}, false},
		"a mark that is written": {append(inIndex(expr.CmpOpEq, 7), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}, accept), rule{}, false},
		"no action":              {append(inIndex(expr.CmpOpEq, 7), &expr.Counter{}), rule{}, false},
		"more behind the action": {append(inIndex(expr.CmpOpEq, 7), accept, &expr.Counter{}), rule{}, false},
		"a jump":                 {append(inIndex(expr.CmpOpEq, 7), &expr.Verdict{Kind: expr.VerdictJump, Chain: "guest_cross"}), rule{}, false},
		"a log":                  {append(inIndex(expr.CmpOpEq, 7), &expr.Log{}, accept), rule{}, false},
		"DNAT":                   {append(inIndex(expr.CmpOpEq, 7), &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}), rule{}, false},
		"nothing":                {nil, rule{}, false},
	} {
		if got, ok := decode(encoded(t, c.in...), false, name); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v", what, got, ok)
		}
	}
}

// Whatever other programs put into the tables, decoding terminates, and a decoded
// rule has an action.
func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, append(inIndex(expr.CmpOpEq, 7), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})...), false)
	f.Add(encoded(f, append(source([]byte{255, 255, 0, 0}, 10, 2, 0, 0), &expr.Masq{})...), false)
	f.Add(encoded(f, &expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
		Mask: []byte{6, 0, 0, 0}, Xor: make([]byte, 4)}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}, &expr.Reject{}), true)
	f.Add(encoded(f, &expr.Verdict{Kind: expr.VerdictJump, Chain: "guest_nat"}), true)
	f.Add([]byte{3, 0, 1, 0, 255, 255, 1, 128}, true)
	f.Fuzz(func(t *testing.T, data []byte, ipv6 bool) {
		r, ok := decode(data, ipv6, name)
		if ok == (r.action == actionNone) {
			t.Errorf("%+v, %v", r, ok)
		}
		for _, p := range []netip.Prefix{r.src, r.dst} {
			if p.IsValid() && (p != p.Masked() || p.Addr().Is6() != ipv6) {
				t.Errorf("prefix %s", p)
			}
		}
		for in := roleNone; in <= roleMangle; in++ {
			r.madeFor(in)
		}
		if chain, ok := jump(data); ok && len(chain) > len(data) {
			t.Errorf("a jump to %q", chain)
		}
	})
}
