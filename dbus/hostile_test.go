package dbus

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// rawCall is a method call message with any signature, flags and body, as a
// client that is not godbus may send it.
func rawCall(serial uint32, flags byte, signature string, body []byte) []byte {
	w := &wire{b: []byte{'l', byte(godbus.TypeMethodCall), flags, 1}}
	w.u32(uint32(len(body)))
	w.u32(serial)
	fields := w.array(8)
	w.field(godbus.FieldPath, "o", func() { w.str(ManagerPath) })
	w.field(godbus.FieldDestination, "s", func() { w.str(BusName) })
	w.field(godbus.FieldInterface, "s", func() { w.str(managerInterface) })
	w.field(godbus.FieldMember, "s", func() { w.str("ListNetworks") })
	if signature != "" {
		w.field(godbus.FieldSignature, "g", func() { w.sig(signature) })
	}
	w.end(fields)
	w.align(8)
	return append(w.b, body...)
}

// randomValues writes values of random types.
type randomValues struct {
	*rand.Rand
	w wire
}

const basicTypes = "ybnqiuxtdsogh"

// signature returns that of one random complete type.
func (r *randomValues) signature(depth int) string {
	if depth > 5 {
		return string(basicTypes[r.IntN(len(basicTypes))])
	}
	switch r.IntN(6) {
	case 0:
		return "a" + r.signature(depth+1)
	case 1:
		return "a{" + string(basicTypes[r.IntN(len(basicTypes))]) + r.signature(depth+1) + "}"
	case 2:
		s := "("
		for range 1 + r.IntN(3) {
			s += r.signature(depth + 1)
		}
		return s + ")"
	case 3:
		return "v"
	}
	return string(basicTypes[r.IntN(len(basicTypes))])
}

func alignmentOf(t byte) int {
	switch t {
	case 'y', 'g', 'v':
		return 1
	case 'n', 'q':
		return 2
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 4
}

// value writes a value of the first type of sig and returns the rest of sig.
func (r *randomValues) value(sig string, depth int) string {
	r.w.align(alignmentOf(sig[0]))
	switch sig[0] {
	case 'y':
		r.w.b = append(r.w.b, byte(r.Uint32()))
	case 'n', 'q':
		r.w.b = append(r.w.b, byte(r.Uint32()), byte(r.Uint32()))
	case 'b', 'h':
		r.w.u32(r.Uint32N(2))
	case 'i', 'u':
		r.w.u32(r.Uint32())
	case 'x', 't', 'd':
		r.w.u32(r.Uint32())
		r.w.u32(r.Uint32() | r.Uint32N(2)*0x7ff80000) // now and then not a number
	case 's':
		r.w.str(strings.Repeat("\u00e9\U0001F525\uFFFE", r.IntN(3)))
	case 'o':
		r.w.str([]string{"/", "/a/b", "/_"}[r.IntN(3)])
	case 'g':
		r.w.sig([]string{"", "a{sv}", "(ii)v", "aaaay"}[r.IntN(4)])
	case 'v':
		inner := r.signature(depth + 2)
		r.w.sig(inner)
		r.value(inner, depth+2)
	case 'a':
		return r.list(sig[1:], depth+1)
	case '(', '{':
		rest := sig[1:]
		for rest[0] != ')' && rest[0] != '}' {
			rest = r.value(rest, depth+1)
		}
		return rest[1:]
	}
	return sig[1:]
}

func (r *randomValues) list(sig string, depth int) string {
	a := r.w.array(alignmentOf(sig[0]))
	for range r.IntN(3) {
		r.value(sig, depth)
	}
	r.w.end(a)
	// Where the element's type ends is found by writing one and throwing it away.
	kept := len(r.w.b)
	rest := r.value(sig, depth)
	r.w.b = r.w.b[:kept]
	return rest
}

// No message that the bus lets through may end the service's connection: any
// local user can send it.
func TestNoMessageEndsTheConnection(t *testing.T) {
	r := newRig(t)
	attacker := r.bus.connect(t)
	send := func(what string, msg []byte) {
		t.Helper()
		if _, err := attacker.socket.Write(msg); err != nil {
			t.Fatalf("%s: sending: %v", what, err)
		}
		if err := attacker.Conn().BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
			t.Logf("%s: the bus itself refuses it: %v", what, err)
			attacker = r.bus.connect(t)
		}
		if err := r.call("ListNetworks").Err; err != nil {
			t.Fatalf("%s: the service is gone: %v", what, err)
		}
	}
	for depth := 1; depth <= 66; depth++ {
		w := &wire{}
		for range depth {
			w.sig("v")
		}
		w.sig("y")
		send(fmt.Sprintf("%d nested variants", depth), rawCall(attacker.serials.GetSerial(), 0, "v", append(w.b, 1)))
	}
	for depth := 1; depth <= 33; depth++ {
		w := &wire{}
		w.u32(0)
		send(fmt.Sprintf("%d nested arrays", depth), rawCall(attacker.serials.GetSerial(), 0, strings.Repeat("a", depth)+"u", w.b))
	}
	for flags := range 256 {
		send(fmt.Sprintf("flags %#x", flags), rawCall(attacker.serials.GetSerial(), byte(flags), "", nil))
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range 1000 {
		v := &randomValues{Rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		sig := v.signature(0)
		v.value(sig, 0)
		send(fmt.Sprintf("a value of type %s: %x", sig, v.w.b), rawCall(attacker.serials.GetSerial(), 0, sig, v.w.b))
	}
}

// A message that godbus cannot decode gets a reply, since its sender waits.
func TestUnreadableCallIsAnswered(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		signature string
		body      []byte
		name      string
	}{
		{"v", nestedVariants(63), errInvalidArgs},
		{"a{sa(tt)}", emptyArraysOfStructs(), errInvalidArgs},
		{"ay", append([]byte{0, 0, 32, 0}, make([]byte, 2<<20)...), errorPrefix + "LimitExceeded"},
	} {
		err := r.sendRaw(t, c.signature, c.body)
		if errorOf(err) != c.name {
			t.Errorf("%s: answered with %q (%v), want %q", c.signature, errorOf(err), err, c.name)
		}
	}
}

func nestedVariants(depth int) []byte {
	w := &wire{}
	for range depth {
		w.sig("v")
	}
	w.sig("y")
	return append(w.b, 1)
}

// emptyArraysOfStructs is a dictionary in which godbus loses its place: it
// forgets the padding of an empty array of structs.
func emptyArraysOfStructs() []byte {
	w := &wire{}
	d := w.array(8)
	for _, key := range []string{"a", "bcd"} {
		w.align(8)
		w.str(key)
		w.end(w.array(8))
	}
	w.end(d)
	return w.b
}

// sendRaw sends a hand-made call and returns the error in its reply.
func (r *rig) sendRaw(t *testing.T, signature string, body []byte) error {
	t.Helper()
	c := r.bus.connect(t)
	serial := c.serials.GetSerial()
	answers := make(chan *godbus.Message, 16)
	c.Conn().Eavesdrop(answers)
	if _, err := c.socket.Write(rawCall(serial, 0, signature, body)); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case m := <-answers:
			if m == nil {
				return fmt.Errorf("the bus closed the connection")
			}
			if m.Headers[godbus.FieldReplySerial].Value() == serial {
				name, _ := m.Headers[godbus.FieldErrorName].Value().(string)
				return godbus.Error{Name: name, Body: m.Body}
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no answer", signature)
		}
	}
}

// godbus's own transport keeps every descriptor that somebody sends.
func TestDescriptorsAreNotTaken(t *testing.T) {
	r := newRig(t)
	other, err := godbus.Connect(r.bus.Address)
	must(t, err)
	defer other.Close()
	before := openFiles(t)
	for range 100 {
		options := map[string]godbus.Variant{"Fd": godbus.MakeVariant(godbus.UnixFD(1))}
		err := other.Object(BusName, ManagerPath).Call(managerInterface+".InstallZones", 0, options).Err
		if err == nil {
			t.Fatal("a call with a descriptor was accepted")
		}
	}
	if after := openFiles(t); after > before+5 {
		t.Errorf("%d files are open after the calls, and %d were before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func TestPanicIsContained(t *testing.T) {
	r := newRig(t)
	r.logs.expect()
	r.api.setFault(func(context.Context) error { panic("by the test") })
	wantError(t, r.call("Reload").Err, errFailed, "fault in the service")
	r.api.setFault(nil)
	must(t, r.call("Reload").Err)
	if !strings.Contains(r.logs.String(), "by the test") || !strings.Contains(r.logs.String(), "hostile_test.go") {
		t.Errorf("the log does not say what happened and where: %s", r.logs)
	}
}

// FuzzFilteredSocket feeds the filter with what no bus would send.
func FuzzFilteredSocket(f *testing.F) {
	f.Add(rawCall(7, 0, "v", nestedVariants(3)))
	f.Add(rawCall(7, 0xff, "a{sa(tt)}", emptyArraysOfStructs()))
	f.Add([]byte("B\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x08\x07\x01s\x00\xff\xff\xff\xf0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &filteredSocket{in: bufio.NewReader(bytes.NewReader(data)), conn: discard{}, framed: true}
		for s.next() == nil {
			if len(s.rest) == 0 {
				continue
			}
			if err := tryDecode(s.rest); err != nil {
				t.Fatalf("let through what cannot be decoded: %v", err)
			}
		}
	})
}

// discard is a socket that drops what is written.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }
func (discard) Close() error                     { return nil }
