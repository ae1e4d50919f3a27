package analysis

import (
	"bytes"
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// key is an element as tests of the fields that a lookup concatenates.
type key struct {
	NFTElement
	tests []Test
}

// keys returns a set's elements for a lookup that begins at a register.
func (d *nftDecoder) keys(set NFTSet, at uint32) (keys []key, ok bool) {
	if set.Flags&unix.NFT_SET_INTERVAL != 0 && set.Flags&setConcat == 0 {
		return d.intervals(set, d.loaded[at])
	}
	for _, e := range set.Elements {
		k := key{NFTElement: e}
		for offset := 0; offset < len(e.Key); {
			l := d.loaded[at+uint32(offset/4)]
			if l.length == 0 || offset+l.length > len(e.Key) {
				return nil, false
			}
			test, ok := d.elementTest(l, e, offset)
			if !ok {
				return nil, false
			}
			k.tests = append(k.tests, test)
			offset += (l.length + 3) / 4 * 4
		}
		keys = append(keys, k)
	}
	return keys, true
}

// setConcat is NFT_SET_CONCAT: the key has several fields, each of which may be a range.
const setConcat = 0x80

func (d *nftDecoder) elementTest(l load, e NFTElement, offset int) (Test, bool) {
	low := e.Key[offset : offset+l.length]
	if len(e.KeyEnd) != len(e.Key) || bytes.Equal(low, e.KeyEnd[offset:offset+l.length]) {
		return d.test(load{field: l.field, length: l.length}, low)
	}
	return rangeTest(load{field: l.field, length: l.length}, low, e.KeyEnd[offset:offset+l.length])
}

// intervals returns the elements of a set of intervals, each of which has another
// element behind its end.
func (d *nftDecoder) intervals(set NFTSet, l load) (keys []key, ok bool) {
	elements := slices.Clone(set.Elements)
	slices.SortStableFunc(elements, func(a, b NFTElement) int {
		// Where one interval ends as the next begins, the end comes first.
		return cmp.Or(bytes.Compare(a.Key, b.Key), cmp.Compare(b2i(b.End), b2i(a.End)))
	})
	for i, e := range elements {
		if e.End {
			continue
		}
		last := bytes.Repeat([]byte{0xff}, len(e.Key))
		if i+1 < len(elements) {
			last = before(elements[i+1].Key)
		}
		test, ok := rangeTest(load{field: l.field, length: l.length}, e.Key, last)
		if !ok {
			return nil, false
		}
		keys = append(keys, key{e, []Test{test}})
	}
	return keys, true
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// before returns the number before one that is big endian.
func before(n []byte) []byte {
	out := slices.Clone(n)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
	return out
}
