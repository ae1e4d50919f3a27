package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// wordSize is the unit of keys: each field of a concatenation begins at one
// (NFT_REG32_SIZE).
const wordSize = 4

// Masks of the addresses that are looked up, as long as the addresses.
var (
	mask4 = netmask(24, 4)
	mask6 = netmask(64, 16)
)

// keyWords returns the size of a field of a key, in words.
func keyWords(k ruleset.KeyType) (words int, ok bool) {
	switch k {
	case ruleset.KeyIfIndex, ruleset.KeyIPv4, ruleset.KeyFamily:
		return 1, true
	case ruleset.KeyIfName, ruleset.KeyIPv6:
		return 4, true
	}
	return 0, false
}

// register returns the register that begins at a word, as the kernel lists it.
func register(word int) uint32 {
	if word%4 == 0 {
		return uint32(unix.NFT_REG_1 + word/4)
	}
	return uint32(unix.NFT_REG32_00 + word)
}

// lookup loads the fields one after another and looks them up.
func (e *encoder) lookup(m ruleset.Lookup) {
	for _, f := range m.Key {
		switch f {
		case ruleset.Source4, ruleset.Destination4:
			e.matchFamily(false)
		case ruleset.Source6, ruleset.Destination6:
			e.matchFamily(true)
		}
	}
	word := 0
	for _, f := range m.Key {
		if f != 0 {
			word += e.load(f, word)
		}
	}
	if word == 0 {
		e.fail("a look-up of nothing in %q", m.Set)
		return
	}
	e.add(&expr.Lookup{SourceRegister: register1, SetName: m.Set})
}

// load loads a field into the registers from a word on and returns how many it takes.
func (e *encoder) load(f ruleset.Field, word int) (words int) {
	at := register(word)
	meta := func(key expr.MetaKey, words int) int {
		e.add(&expr.Meta{Key: key, Register: at})
		return words
	}
	address := func(offset uint32, mask []byte) int {
		e.add(&expr.Payload{DestRegister: at, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(mask))},
			&expr.Bitwise{SourceRegister: at, DestRegister: at, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))})
		return len(mask) / wordSize
	}
	switch f {
	case ruleset.InIndex:
		return meta(expr.MetaKeyIIF, 1)
	case ruleset.OutIndex:
		return meta(expr.MetaKeyOIF, 1)
	case ruleset.InName:
		return meta(expr.MetaKeyIIFNAME, 4)
	case ruleset.OutName:
		return meta(expr.MetaKeyOIFNAME, 4)
	case ruleset.FamilyField:
		return meta(expr.MetaKeyNFPROTO, 1)
	case ruleset.Source4:
		return address(source4, mask4)
	case ruleset.Destination4:
		return address(destination4, mask4)
	case ruleset.Source6:
		return address(source6, mask6)
	case ruleset.Destination6:
		return address(destination6, mask6)
	}
	e.fail("unknown field %d", f)
	return 0
}

// keyOf encodes an element's key for a set: indexes in native byte order, names in 16
// bytes, each field filled up to whole words.
func keyOf(s ruleset.Set, e ruleset.Element) (string, error) {
	var key []byte
	addresses := e.Addresses[:]
	for _, k := range s.Key {
		switch {
		case k == ruleset.KeyIfIndex && e.Index > 0:
			key = binary.NativeEndian.AppendUint32(key, uint32(e.Index))
		case k == ruleset.KeyIfName && e.Name != "" && len(e.Name) < ifNameSize:
			key = append(key, interfaceName(e.Name)...)
		case k == ruleset.KeyIPv4 && len(addresses) > 0 && addresses[0].Is4(),
			k == ruleset.KeyIPv6 && len(addresses) > 0 && addresses[0].Is6():
			key, addresses = append(key, addresses[0].AsSlice()...), addresses[1:]
		case k == ruleset.KeyFamily:
			key = append(key, familyNumber(e.IPv6), 0, 0, 0)
		default:
			return "", fmt.Errorf("element %q (%d) does not fit field %s of set %s", e.Name, e.Index, k, s.Name)
		}
	}
	return string(key), nil
}

func familyNumber(v6 bool) byte {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// keyText returns a key as nft prints it, but for names of indexes.
func keyText(s ruleset.Set, key string) string {
	var out bytes.Buffer
	rest := []byte(key)
	for i, k := range s.Key {
		words, _ := keyWords(k)
		if len(rest) < words*wordSize {
			break
		}
		if i > 0 {
			out.WriteString(" . ")
		}
		out.WriteString(fieldText(k, rest[:words*wordSize]))
		rest = rest[words*wordSize:]
	}
	return out.String()
}

func fieldText(k ruleset.KeyType, value []byte) string {
	switch k {
	case ruleset.KeyIfIndex:
		return fmt.Sprint(binaryutil.NativeEndian.Uint32(value))
	case ruleset.KeyIfName:
		return fmt.Sprintf("%q", bytes.TrimRight(value, "\x00"))
	case ruleset.KeyFamily:
		if value[0] == unix.NFPROTO_IPV6 {
			return "ipv6"
		}
		return "ipv4"
	}
	a, _ := netip.AddrFromSlice(value)
	return a.String()
}

// setType returns the kernel's type of a set's keys.
func setType(s ruleset.Set) (nftables.SetDatatype, error) {
	known := map[ruleset.KeyType]nftables.SetDatatype{
		ruleset.KeyIfIndex: nftables.TypeIFIndex, ruleset.KeyIfName: nftables.TypeIFName, ruleset.KeyFamily: nftables.TypeNFProto,
		ruleset.KeyIPv4: nftables.TypeIPAddr, ruleset.KeyIPv6: nftables.TypeIP6Addr,
	}
	types := make([]nftables.SetDatatype, len(s.Key))
	for i, k := range s.Key {
		t, ok := known[k]
		if !ok {
			return nftables.SetDatatype{}, fmt.Errorf("unknown key type %q of set %s", k, s.Name)
		}
		types[i] = t
	}
	return nftables.ConcatSetType(types...)
}
