package dbus

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// eventually waits for what no signal announces.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// listen returns a connection's signals from the service, in order.
func (r *rig) listen(t testing.TB, c *Bus) <-chan *godbus.Signal {
	t.Helper()
	ch := make(chan *godbus.Signal, 1<<14)
	c.Conn().Signal(ch)
	must(t, c.Conn().AddMatchSignal(godbus.WithMatchPathNamespace(ManagerPath)))
	return ch
}

func next(t testing.TB, ch <-chan *godbus.Signal) *godbus.Signal {
	t.Helper()
	for {
		select {
		case s := <-ch:
			if strings.HasPrefix(s.Name, "org.freedesktop.DBus.Name") {
				continue
			}
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("no signal came")
		}
	}
}

func wantSignal(t testing.TB, ch <-chan *godbus.Signal, path godbus.ObjectPath, name string, body ...any) *godbus.Signal {
	t.Helper()
	s := next(t, ch)
	if s.Path != path || s.Name != name {
		t.Fatalf("%s came from %s, want %s from %s", s.Name, s.Path, name, path)
	}
	if body != nil && fmt.Sprintf("%v", s.Body) != fmt.Sprintf("%v", body) {
		t.Fatalf("%s has %v, want %v", name, s.Body, body)
	}
	return s
}

func TestSignals(t *testing.T) {
	r := newRig(t)
	ch := r.listen(t, r.client)
	path := r.add(t, "lab")
	added := wantSignal(t, ch, ManagerPath, objectManagerInterface+".InterfacesAdded")
	props := added.Body[1].(map[string]map[string]godbus.Variant)[networkInterface]
	if added.Body[0] != path || props["Name"].Value() != "lab" || len(props) != 24 {
		t.Errorf("InterfacesAdded has %v", added.Body)
	}
	wantSignal(t, ch, ManagerPath, managerInterface+".NetworkAdded", "lab", path)

	must(t, r.callAt(path, networkInterface+".Update", options("DNS", false, "TFTP", true, "DHCP", true), noOptions()).Err)
	wantSignal(t, ch, path, propertiesInterface+".PropertiesChanged",
		networkInterface, options("DNS", false, "TFTP", true), []string{})

	// Nothing changes, so there is no signal; the next one is of the next call.
	must(t, r.callAt(path, networkInterface+".Update", options("DNS", false), noOptions()).Err)
	must(t, r.call("SetBackend", "iptables", noOptions()).Err)
	wantSignal(t, ch, ManagerPath, propertiesInterface+".PropertiesChanged",
		managerInterface, options("Backend", "iptables"), []string{})
	wantSignal(t, ch, ManagerPath, managerInterface+".BackendChanged", "nftables", "iptables")

	r.server.Notify(service.FindingsChanged{})
	wantSignal(t, ch, ManagerPath, managerInterface+".FindingsChanged")
	r.server.Notify(service.Repaired{Name: "lab", Cause: "a flush\x00"})
	wantSignal(t, ch, ManagerPath, managerInterface+".Repaired", "lab", "a flush\uFFFD")

	must(t, r.call("RemoveNetwork", "lab", noOptions()).Err)
	wantSignal(t, ch, ManagerPath, managerInterface+".NetworkRemoved", "lab", path)
	wantSignal(t, ch, ManagerPath, objectManagerInterface+".InterfacesRemoved", path, []string{networkInterface})
}

// The UUID is constant for as long as an object lives, so that a network with
// another UUID in the place of one is another object.
func TestReplacementWithAnotherUUIDIsAnotherObject(t *testing.T) {
	r := newRig(t)
	must(t, r.call("AddNetworkFromXML", defaultXML, noOptions()).Err)
	ch := r.listen(t, r.client)
	path := NetworkPath("default")
	other := strings.Replace(defaultXML, "9a05da11", "00000000", 1)
	must(t, r.call("AddNetworkFromXML", other, options("Replace", true)).Err)
	wantSignal(t, ch, ManagerPath, managerInterface+".NetworkRemoved", "default", path)
	wantSignal(t, ch, ManagerPath, objectManagerInterface+".InterfacesRemoved", path, []string{networkInterface})
	wantSignal(t, ch, ManagerPath, objectManagerInterface+".InterfacesAdded")
	wantSignal(t, ch, ManagerPath, managerInterface+".NetworkAdded", "default", path)
}

// The signals of a change arrive before the reply to it.
func TestSignalsComeBeforeTheAnswer(t *testing.T) {
	r := newRig(t)
	ch := r.listen(t, r.client)
	for i := range 200 {
		call := r.call("AddNetwork", fmt.Sprintf("net%d", i), plainSettings(fmt.Sprint(i)), noOptions())
		must(t, call.Err)
		wantSignal(t, ch, ManagerPath, objectManagerInterface+".InterfacesAdded")
		s := wantSignal(t, ch, ManagerPath, managerInterface+".NetworkAdded")
		if s.Sequence > call.ResponseSequence {
			t.Fatalf("network %d: the answer overtook the signal", i)
		}
	}
}

// A client that replaces its state by each reply, and applies the signals in
// between, would lose a network if a reply could be older than a signal that
// arrived before it.
func TestAnswersAreNeverOlderThanSignals(t *testing.T) {
	r := newRig(t)
	ch := r.listen(t, r.client)
	const n = 1000
	networks := make([]network.Network, n)
	for i := range networks {
		networks[i] = namedNetwork(t, fmt.Sprintf("n%d", i))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, n := range networks {
			_ = r.api.AddNetwork(context.Background(), n, service.ChangeOptions{})
			r.server.events.flush(context.Background()) // or else all answers are newer than all signals
		}
	}()
	var answers []*godbus.Call
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		var calls []*godbus.Call
		for range 8 { // at once, since godbus may send their answers in any order
			calls = append(calls, r.object(ManagerPath).Go(managerInterface+".ListNetworks", 0, make(chan *godbus.Call, 1)))
		}
		for _, c := range calls {
			must(t, (<-c.Done).Err)
		}
		answers = append(answers, calls...)
	}
	slices.SortFunc(answers, func(a, b *godbus.Call) int { return cmp.Compare(a.ResponseSequence, b.ResponseSequence) })
	for told := 0; told < n; {
		s := next(t, ch)
		for len(answers) > 0 && answers[0].ResponseSequence < s.Sequence {
			if got := len(answers[0].Body[0].([]godbus.ObjectPath)); got < told {
				t.Fatalf("an answer shows %d networks after %d were announced", got, told)
			}
			answers = answers[1:]
		}
		if s.Name == managerInterface+".NetworkAdded" {
			told++
		}
	}
}

// Events may come while the bus does not read: the service never waits for it.
func TestNotifyNeverWaits(t *testing.T) {
	r := newRig(t)
	r.add(t, "lab")
	st, _ := r.api.NetworkStatus("lab")
	r.bus.pause(t)
	start := time.Now()
	big := st
	big.StateReason = strings.Repeat("x", 4096)
	const n = 2000 // far more than the socket's buffers hold
	for i := range n {
		st.BridgeIndex, big.BridgeIndex = i, i+1
		r.server.Notify(service.NetworkChanged{Old: st, New: big})
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("%d events took %v", n, took)
	}
	ch := make(chan *godbus.Signal, n+16)
	r.bus.resume(t)
	c := r.bus.connect(t)
	c.Conn().Signal(ch)
	must(t, c.Conn().AddMatchSignal(godbus.WithMatchPathNamespace(ManagerPath)))
	must(t, r.call("Reload").Err)
}

// Events come out in the order in which they went in.
func TestSignalsKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	r.add(t, "lab")
	ch := r.listen(t, r.client)
	old, _ := r.api.NetworkStatus("lab")
	const n = 5000
	for i := range n {
		now := old
		now.BridgeIndex = 1000 + i
		r.server.Notify(service.NetworkChanged{Old: old, New: now})
		old = now
	}
	for i := range n {
		s := wantSignal(t, ch, NetworkPath("lab"), propertiesInterface+".PropertiesChanged")
		if got := s.Body[1].(map[string]godbus.Variant)["BridgeIndex"].Value(); got != int32(1000+i) {
			t.Fatalf("signal %d has the index %v", i, got)
		}
	}
}

// A full queue ends the connection, so that it cannot fill the memory.
func TestFullQueueEndsTheConnection(t *testing.T) {
	r := newRig(t)
	r.logs.expect()
	r.bus.pause(t)
	e := service.Repaired{Name: "lab", Cause: strings.Repeat("x", 200)}
	for range maxQueued + 20000 {
		r.server.Notify(e)
	}
	select {
	case <-r.served.Conn().Context().Done():
	case <-time.After(10 * time.Second):
		t.Error("the connection is still there")
	}
	if !strings.Contains(r.logs.String(), "does not take signals") {
		t.Errorf("the log says: %s", r.logs)
	}
	r.bus.resume(t)
}

func TestNameTaken(t *testing.T) {
	r := newRig(t)
	second, err := New(r.bus.connect(t), newFakeAPI(), NewGate(nil, readersOnly{}), slog.New(slog.DiscardHandler))
	must(t, err)
	err = second.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another process owns it (process ") {
		t.Errorf("the second server started with %v", err)
	}
	must(t, r.call("Reload").Err)
}

// After Close nobody owns the name, and the running call was answered.
func TestCloseLetsCallsEnd(t *testing.T) {
	r := newRig(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.api.setFault(func(context.Context) error { close(entered); <-leave; return nil })
	call := r.object(ManagerPath).Go(managerInterface+".Reload", 0, make(chan *godbus.Call, 1))
	<-entered
	closed := make(chan struct{})
	go func() { r.server.Close(); close(closed) }()
	eventually(t, "the end of the name", func() bool {
		var owned bool
		must(t, r.client.Conn().BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, BusName).Store(&owned))
		return !owned
	})
	close(leave)
	must(t, (<-call.Done).Err)
	<-closed
	if names := r.served.Conn().Names(); slices.Contains(names, BusName) {
		t.Errorf("the connection still has %v", names)
	}
}

// A stuck bus cannot keep the daemon from ending.
func TestCloseWhileTheBusIsStuck(t *testing.T) {
	r := newRig(t)
	r.logs.expect() // the signal that could not be sent
	r.bus.pause(t)
	for range 5000 {
		r.server.Notify(service.Repaired{Name: "lab", Cause: strings.Repeat("x", 1000)})
	}
	start := time.Now()
	r.server.Close()
	if took := time.Since(start); took > 3*closeGrace {
		t.Errorf("closing took %v", took)
	}
	if n := strings.Count(r.logs.String(), "\n"); n > 1 {
		t.Errorf("%d lines were logged:\n%.500s", n, r.logs)
	}
	r.bus.resume(t)
}
