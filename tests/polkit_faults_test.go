package tests

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// TestPolkitIsAbsent: root works, nobody else does, and is told why; when polkit
// comes all is well.
func TestPolkitIsAbsent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.withoutPolkit()
	r.StartDaemon()
	p := r.as(alice)
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	r.wantDenied(p.Manager("RemoveNetwork", "lab", opts()), "not on the bus", "install or start", "sudo")
	r.wantDenied(p.Manager("ListNetworks"), "not on the bus")
	if !strings.Contains(r.Daemon.Log(), "method=ListNetworks") {
		t.Error("the log does not say that reading was denied, and why")
	}
	r.must(r.Network("lab", "Update", opts("TFTP", true), opts()))
	r.rules(rule("manage-networks", "true", "YES"))
	polkitd := r.Polkit()
	r.must(p.Manager("ListNetworks"))
	r.must(p.Manager("RemoveNetwork", "lab", opts()))

	// It comes anew while the service runs.
	fatal(t, polkitd.Stop())
	r.wantDenied(p.Manager("RemoveNetwork", "lab", opts()), "not on the bus")
	r.Polkit()
	r.must(p.AddXML(netXML("lab", "virbr5", "nat", natNet)))
}

// TestPolkitIsStartedByTheBus, for the first call that asks for it.
func TestPolkitIsStartedByTheBus(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.as(alice).Manager("ListNetworks"))
	r.wantError(r.as(bob).Manager("Reload"), needsPeople)
}

// TestPolkitHangs: who needs it is denied in time, and nobody else waits.
func TestPolkitHangs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rules(rule("manage-networks", "true", "YES"))
	polkitd := r.Polkit()
	r.StartDaemon()
	a, b := r.as(alice), r.as(bob)
	r.must(a.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	time.Sleep(1100 * time.Millisecond) // what was known of readers is forgotten
	r.halt(polkitd.Signal)
	var wg sync.WaitGroup
	waiting := []*godbus.Call{}
	var mu sync.Mutex
	for range 40 { // more than wait at once
		wg.Go(func() {
			call := a.Manager("RemoveNetwork", "lab", opts())
			mu.Lock()
			defer mu.Unlock()
			waiting = append(waiting, call)
		})
	}
	wg.Go(func() { r.wantDenied(b.Manager("ListNetworks"), "did not answer in time", "polkitd hangs", "sudo") })
	start := time.Now()
	for i := range 20 {
		r.must(r.AddXML(netXML(fmt.Sprint("n", i), fmt.Sprint("virbr1", i), "nat", fmt.Sprintf("10.1.%d.1/24", i))))
		r.must(b.call(managerPath, "org.freedesktop.DBus.Peer.Ping"))
	}
	t.Logf("20 networks by root took %v while polkit hung", time.Since(start))
	wg.Wait()
	for _, call := range waiting {
		if name := errorName(call.Err); name != denied && name != "org.freedesktop.DBus.Error.LimitsExceeded" {
			t.Errorf("a call ended with %v", call.Err)
		}
	}
	fatal(t, polkitd.Signal(unix.SIGCONT))
	r.must(a.Manager("RemoveNetwork", "lab", opts()))
}

// TestPolkitRuleRunsAway: polkit ends a rule that does not end after 15 seconds
// and answers then, and that answer is waited for.
func TestPolkitRuleRunsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rules(rule("reload", "(function() { while (true); })()", "YES"))
	r.Polkit()
	r.StartDaemon()
	a := r.as(alice)
	r.must(a.Manager("ListNetworks"))
	r.wantDenied(a.Manager("Reload"), "does not let", "reload")
	r.must(r.as(bob).Manager("ListNetworks"))
}

// TestPolicyIsMissing: polkit answers with an error, which names the remedy.
func TestPolicyIsMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fatal(t, r.Inside(func() error { return os.Remove("/usr/share/polkit-1/actions/" + polkitPolicy) }))
	r.Polkit()
	r.StartDaemon()
	r.wantDenied(r.as(alice).Manager("Reload"), "does not know the action", "/usr/share/polkit-1/actions", "sudo")
	r.must(r.Manager("Reload"))
}

// fakePolkit answers as no real one does: calls is what it is asked, and it
// answers by hand.
type fakePolkit struct {
	r     *rig
	conn  *godbus.Conn
	calls chan *godbus.Message
}

func (r *rig) fakePolkit() *fakePolkit {
	r.t.Helper()
	r.withoutPolkit()
	uid, err := strconv.Atoi(strings.TrimSpace(r.Must("id", "-u", "polkitd")))
	fatal(r.t, err)
	conn := r.as(uid).conn // the bus lets nobody else have the name
	_, err = conn.RequestName(polkitName, godbus.NameFlagDoNotQueue)
	fatal(r.t, err)
	f := &fakePolkit{r: r, conn: conn, calls: make(chan *godbus.Message, 64)}
	conn.Eavesdrop(f.calls)
	return f
}

// next is the next call of a method.
func (f *fakePolkit) next(member string) *godbus.Message {
	f.r.t.Helper()
	timeout := time.After(callTimeout)
	for {
		select {
		case m := <-f.calls:
			if m.Headers[godbus.FieldMember].Value() == member {
				return m
			}
		case <-timeout:
			f.r.t.Fatalf("polkit was not asked for %s", member)
		}
	}
}

// authorization is what the real one answers with.
type authorization struct {
	Yes, Challenge bool
	Details        map[string]string
}

// TestPolkitTalksNonsense is told apart from a yes.
func TestPolkitTalksNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.fakePolkit()
	r.StartDaemon()
	p := r.as(alice)
	huge := map[string]string{"polkit.result": strings.Repeat("x", 8<<20)}
	none := map[string]string{}
	type two struct{ Yes, Challenge bool }
	type odd struct {
		Yes       uint32
		Challenge bool
		Details   map[string]string
	}
	done := make(chan *godbus.Call, 1)
	ask := func() *godbus.Message {
		go func() { done <- p.Manager("Reload") }()
		return f.next("CheckAuthorization")
	}
	for _, c := range []struct {
		body []any
		word string
	}{
		{[]any{"yes"}, "not one"},
		{[]any{}, "not one"},
		{[]any{two{true, false}}, "not one"},
		{[]any{odd{1, false, none}}, "not one"},
		{[]any{authorization{true, true, none}}, "both yes"},
		{[]any{true, false, none}, "not one"},
		{[]any{authorization{false, false, huge}}, "does not let"},
		{[]any{godbus.MakeVariant(authorization{true, false, none})}, "not one"},
	} {
		answer(f.conn, ask(), godbus.TypeMethodReply, c.body...)
		r.wantDenied(<-done, c.word)
	}
	answer(f.conn, ask(), godbus.TypeError, "no such weather")
	r.wantDenied(<-done, "no such weather")
	answer(f.conn, ask(), godbus.TypeMethodReply, authorization{true, false, none})
	r.must(<-done)
}

// TestStrangersDoNotAnswer: the bus lets a reply through only from the one who
// was asked, so that nobody else can say yes in polkit's place.
func TestStrangersDoNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.fakePolkit()
	r.StartDaemon()
	p, stranger := r.as(alice), r.as(bob)
	done := make(chan *godbus.Call, 1)
	go func() { done <- p.Manager("Reload") }()
	asked := f.next("CheckAuthorization")
	service := asked.Headers[godbus.FieldSender].Value().(string)
	for _, conn := range []*godbus.Conn{stranger.conn, p.conn, r.bus} {
		for serial := asked.Serial() - min(asked.Serial()-1, 5); serial < asked.Serial()+5; serial++ {
			sendReply(conn, service, serial, godbus.TypeMethodReply, authorization{true, false, map[string]string{}})
		}
		// The bus has dealt with these once it answers the next.
		r.must(conn.BusObject().Call("org.freedesktop.DBus.GetId", 0))
	}
	// In order with what the service has got, should anything have come through.
	r.must(p.call(managerPath, "org.freedesktop.DBus.Peer.Ping"))
	answer(f.conn, asked, godbus.TypeMethodReply, authorization{false, false, map[string]string{}})
	r.wantDenied(<-done, "does not let")
}

// TestApprovalIsForWhatWasThere: each call that changes a network compares what
// was approved with what is there when its turn comes.
func TestApprovalIsForWhatWasThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.fakePolkit()
	r.StartDaemon()
	p := r.as(alice)
	lab := netXML("lab", "virbr5", "nat", natNet)
	r.must(r.AddXML(lab))
	modes, turn := []string{"route", "nat"}, 0
	other := func() {
		r.must(r.Network("lab", "Update", opts("ForwardMode", modes[turn%2]), opts()))
		turn++
	}
	another := func() { r.must(r.AddXML(netXML("late", "virbr7", "nat", "10.7.0.1/24"))) }
	for _, c := range []struct {
		what      string
		call      func() *godbus.Call
		meanwhile func()
	}{
		{"Update", func() *godbus.Call { return p.Network("lab", "Update", opts("TFTP", true), opts()) }, other},
		{"Replace", func() *godbus.Call { return p.AddXML(lab, "Replace", true) }, other},
		{"RemoveNetwork", func() *godbus.Call { return p.Manager("RemoveNetwork", "lab", opts()) }, other},
		{"BindInterface", func() *godbus.Call { return p.Manager("BindInterface", "virbr5", "libvirt") }, other},
		{"UnbindInterface", func() *godbus.Call { return p.Manager("UnbindInterface", "virbr5") }, other},
		{"RemoveNetwork of none", func() *godbus.Call { return p.Manager("RemoveNetwork", "late", opts()) }, another},
	} {
		done := make(chan *godbus.Call, 1)
		go func() { done <- c.call() }()
		asked := f.next("CheckAuthorization")
		c.meanwhile()
		call := f.sayYes(asked, done)
		if r.wantDenied(call, "changed by another", "call again"); t.Failed() {
			t.Fatal(c.what)
		}
	}
	// And where nothing changed, it is done.
	done := make(chan *godbus.Call, 1)
	go func() { done <- p.Network("lab", "Update", opts("TFTP", true, "Bridge", "virbr8"), opts()) }()
	r.must(f.sayYes(f.next("CheckAuthorization"), done))
}

// sayYes answers a question and those that follow it, until the call ends.
func (f *fakePolkit) sayYes(asked *godbus.Message, done <-chan *godbus.Call) *godbus.Call {
	for {
		answer(f.conn, asked, godbus.TypeMethodReply, authorization{true, false, map[string]string{}})
		select {
		case asked = <-f.calls:
		case call := <-done:
			return call
		}
	}
}

// TestCancelledCheck: polkit is told to take its dialogue away when the caller
// has left, and nothing is done.
func TestCancelledCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.fakePolkit()
	r.StartDaemon()
	p := r.as(alice)
	go p.interactively(managerPath, managerName+".AddNetworkFromXML", netXML("lab", "virbr5", "nat", natNet), opts())
	quiet := f.next("CheckAuthorization")
	if flags := quiet.Body[3]; flags != uint32(0) {
		t.Errorf("the first question has the flags %v", flags)
	}
	answer(f.conn, quiet, godbus.TypeMethodReply, authorization{false, true, map[string]string{}})
	open := f.next("CheckAuthorization")
	if flags := open.Body[3]; flags != uint32(1) {
		t.Errorf("the second question has the flags %v", flags)
	}
	p.leave()
	if id := f.next("CancelCheckAuthorization").Body[0]; id != open.Body[4] || id == "" {
		t.Errorf("check %v was cancelled, not %v", id, open.Body[4])
	}
	answer(f.conn, open, godbus.TypeMethodReply, authorization{true, false, map[string]string{}})
	r.await("the denial", func() bool { return strings.Contains(r.Daemon.Log(), "the caller has left the bus") })
	if names := r.names(); len(names) != 0 {
		t.Errorf("there are the networks %q", names)
	}
}

// answer sends a reply or error of any kind.
func answer(conn *godbus.Conn, call *godbus.Message, kind godbus.Type, body ...any) {
	sendReply(conn, call.Headers[godbus.FieldSender].Value().(string), call.Serial(), kind, body...)
}

func sendReply(conn *godbus.Conn, to string, serial uint32, kind godbus.Type, body ...any) {
	msg := &godbus.Message{Type: kind, Flags: godbus.FlagNoReplyExpected, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(to), godbus.FieldReplySerial: godbus.MakeVariant(serial),
	}}
	if len(body) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(body...))
	}
	if kind == godbus.TypeError {
		msg.Headers[godbus.FieldErrorName] = godbus.MakeVariant("org.example.Weather")
	}
	conn.Send(msg, nil)
}
