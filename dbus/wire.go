package dbus

import (
	"encoding/binary"
	"fmt"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

const managedObjectsSignature = "a{oa{sa{sv}}}"

// maxMessageBytes is below the 32 MiB above which the system bus disconnects the
// sender.
const maxMessageBytes = 31 << 20

// wire writes D-Bus's wire format, little-endian. It exists for the reply to
// GetManagedObjects: godbus needs 35 ms and half a million allocations to write
// that for 1,000 networks (it encodes twice, by reflection), and blocks every
// other message meanwhile.
type wire struct{ b []byte }

// managedObjectsReply returns the whole message that replies to GetManagedObjects.
func managedObjectsReply(serial, replyTo uint32, dest string, all []service.Status) ([]byte, error) {
	w := &wire{b: make([]byte, 0, 1024*(len(all)+1))}
	w.head(godbus.TypeMethodReply, serial, replyTo, dest, managedObjectsSignature, "")
	start := len(w.b)
	if err := w.managedObjects(all); err != nil {
		return nil, err
	}
	if len(w.b) > maxMessageBytes {
		return nil, refuse(errLimitsExceeded, "the networks fill %d bytes, more than a message can hold: ask for one network at a time", len(w.b))
	}
	w.bodyFrom(start)
	return w.b, nil
}

// head writes the header of a reply to a call; errorName is "" for a success.
func (w *wire) head(kind godbus.Type, serial, replyTo uint32, dest, signature, errorName string) {
	w.b = append(w.b, 'l', byte(kind), 0, 1)
	w.u32(0) // the body's length, see bodyFrom
	w.u32(serial)
	fields := w.array(8)
	w.field(godbus.FieldReplySerial, "u", func() { w.u32(replyTo) })
	w.field(godbus.FieldDestination, "s", func() { w.str(dest) })
	w.field(godbus.FieldSignature, "g", func() { w.sig(signature) })
	if errorName != "" {
		w.field(godbus.FieldErrorName, "s", func() { w.str(errorName) })
	}
	w.end(fields)
	w.align(8)
}

// bodyFrom sets the length in the header of a body that begins at start.
func (w *wire) bodyFrom(start int) {
	binary.LittleEndian.PutUint32(w.b[4:], uint32(len(w.b)-start))
}

func (w *wire) managedObjects(all []service.Status) error {
	objects := w.array(8)
	for _, st := range all {
		w.align(8)
		w.str(string(NetworkPath(st.Network.Name)))
		ifaces := w.array(8)
		w.str(networkInterface)
		props := w.array(8)
		for _, p := range networkProperties(st) {
			w.align(8)
			w.str(p.name)
			if err := w.variant(p.value); err != nil {
				return fmt.Errorf("writing %s of %s: %w", p.name, st.Network.Name, err)
			}
		}
		w.end(props)
		w.end(ifaces)
	}
	w.end(objects)
	return nil
}

func (w *wire) variant(v any) error {
	switch v := v.(type) {
	case string:
		w.sig("s")
		w.str(v)
	case bool:
		w.sig("b")
		w.u32(map[bool]uint32{true: 1}[v])
	case int32:
		w.sig("i")
		w.u32(uint32(v))
	case []string:
		w.sig("as")
		a := w.array(4)
		for _, s := range v {
			w.str(s)
		}
		w.end(a)
	case []map[string]godbus.Variant:
		if len(v) != 0 {
			return fmt.Errorf("no way to write records yet")
		}
		w.sig("aa{sv}")
		w.end(w.array(4))
	default:
		return fmt.Errorf("no way to write a %T", v)
	}
	return nil
}

func (w *wire) align(n int) {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *wire) u32(v uint32) {
	w.align(4)
	w.b = binary.LittleEndian.AppendUint32(w.b, v)
}

func (w *wire) str(s string) {
	w.u32(uint32(len(s)))
	w.b = append(append(w.b, s...), 0)
}

func (w *wire) sig(s string) {
	w.b = append(append(append(w.b, byte(len(s))), s...), 0)
}

func (w *wire) field(code godbus.HeaderField, sig string, value func()) {
	w.align(8)
	w.b = append(w.b, byte(code))
	w.sig(sig)
	value()
}

// openArray is an array whose length is not known yet.
type openArray struct{ length, first int }

// array starts an array of elements of the given alignment. The padding before
// the first exists also in an empty array, and is not part of the length.
func (w *wire) array(alignment int) openArray {
	w.u32(0)
	at := len(w.b) - 4
	w.align(alignment)
	return openArray{length: at, first: len(w.b)}
}

func (w *wire) end(a openArray) {
	binary.LittleEndian.PutUint32(w.b[a.length:], uint32(len(w.b)-a.first))
}
