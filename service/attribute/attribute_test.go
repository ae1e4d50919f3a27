package attribute

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
