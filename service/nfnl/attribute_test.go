package nfnl

import (
	"bytes"
	"testing"
)

// FuzzAll: whatever the bytes are, values lie inside them and the walk ends.
func FuzzAll(f *testing.F) {
	f.Add([]byte{5, 0, 1, 0x80, 7, 0, 0, 0, 4, 0, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, value := range All(b) {
			total += 4 + len(value)
			if !bytes.Contains(b, value) {
				t.Fatal("a value that is not there")
			}
		}
		if total > len(b) {
			t.Fatalf("%d bytes of %d", total, len(b))
		}
	})
}

func TestAll(t *testing.T) {
	var kinds []uint16
	for kind, value := range All([]byte{5, 0, 1, 0x80, 7, 0, 0, 0, 4, 0, 2, 0, 9, 0, 3, 0}) {
		kinds = append(kinds, kind)
		if kind == 1 && !bytes.Equal(value, []byte{7}) {
			t.Errorf("value %v", value)
		}
	}
	if len(kinds) != 2 || kinds[0] != 1 || kinds[1] != 2 {
		t.Errorf("types %v", kinds)
	}
}

func TestAttributes(t *testing.T) {
	a := Attributes{
		5, 0, 1, 0, 'a', 0, 0, 0, // a text without its zero
		6, 0, 2, 0, 'b', 0, 0, 0,
		8, 0, 3, 0x40, 0, 0, 1, 2,
		12, 0, 4, 0x80, 8, 0, 3, 0x40, 0, 0, 0, 7,
		4, 0, 5, 0,
		8, 0, 3, 0, 9, 9, 9, 9, // the first of a type counts
	}
	if a.Text(1) != "a" || a.Text(2) != "b" || a.Text(5) != "" {
		t.Errorf("texts %q, %q, %q", a.Text(1), a.Text(2), a.Text(5))
	}
	if a.Uint32(3) != 258 || a.Get(4).Uint32(3) != 7 || a.Uint32(1) != 0 || a.Uint64(3) != 0 {
		t.Errorf("numbers %d, %d, %d, %d", a.Uint32(3), a.Get(4).Uint32(3), a.Uint32(1), a.Uint64(3))
	}
	if !a.Has(5) || a.Has(6) || a.Get(6).Has(1) {
		t.Error("an attribute without a value is there, one that is absent is not")
	}
}
