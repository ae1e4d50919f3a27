package polkit

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestPolkitIsAbsent: root's calls work, other users' are denied with the reason;
// when polkit starts, all work.
func TestPolkitIsAbsent(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Polkit.Remove()
	r.StartDaemon()
	p := r.As(rig.Alice)
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	r.WantDenied(p.Manager("RemoveNetwork", "lab", rig.Opts()), "not on the bus", "install or start", "sudo")
	r.WantDenied(p.Manager("ListNetworks"), "not on the bus")
	if !strings.Contains(r.Daemon.Log(), "method=ListNetworks") {
		t.Error("the log does not say that reading was denied, and why")
	}
	r.OK(r.Network("lab", "Update", rig.Opts("TFTP", true), rig.Opts()))
	r.Polkit.Rules(rig.Rule("manage-networks", "true", "YES"))
	polkitd := r.Polkit.Start()
	r.OK(p.Manager("ListNetworks"))
	r.OK(p.Manager("RemoveNetwork", "lab", rig.Opts()))

	// It starts again while the service runs.
	rig.Must(t, polkitd.Stop())
	r.WantDenied(p.Manager("RemoveNetwork", "lab", rig.Opts()), "not on the bus")
	r.Polkit.Start()
	r.OK(p.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
}

// TestPolkitIsStartedByTheBus, for the first call that asks for it.
func TestPolkitIsStartedByTheBus(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.As(rig.Alice).Manager("ListNetworks"))
	r.WantError(r.As(rig.Bob).Manager("Reload"), rig.NeedsPeople)
}

// TestPolkitHangs: calls that need polkit are denied in time, and no other call
// waits.
func TestPolkitHangs(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Polkit.Rules(rig.Rule("manage-networks", "true", "YES"))
	polkitd := r.Polkit.Start()
	r.StartDaemon()
	a, b := r.As(rig.Alice), r.As(rig.Bob)
	r.OK(a.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	time.Sleep(1100 * time.Millisecond) // what was known of readers is forgotten
	halt(r, polkitd.Signal)
	var wg sync.WaitGroup
	waiting := []*godbus.Call{}
	var mu sync.Mutex
	for range 40 { // more than wait at once
		wg.Go(func() {
			call := a.Manager("RemoveNetwork", "lab", rig.Opts())
			mu.Lock()
			defer mu.Unlock()
			waiting = append(waiting, call)
		})
	}
	wg.Go(func() { r.WantDenied(b.Manager("ListNetworks"), "did not answer in time", "polkitd hangs", "sudo") })
	start := time.Now()
	for i := range 20 {
		r.OK(r.AddXML(rig.NetXML(fmt.Sprint("n", i), fmt.Sprint("virbr1", i), "nat", fmt.Sprintf("10.1.%d.1/24", i))))
		r.OK(b.Call(rig.ManagerPath, "org.freedesktop.DBus.Peer.Ping"))
	}
	t.Logf("20 networks by root took %v while polkit hung", time.Since(start))
	wg.Wait()
	for _, call := range waiting {
		if name := rig.ErrorName(call.Err); name != rig.Denied && name != "org.freedesktop.DBus.Error.LimitsExceeded" {
			t.Errorf("a call ended with %v", call.Err)
		}
	}
	rig.Must(t, polkitd.Signal(unix.SIGCONT))
	r.OK(a.Manager("RemoveNetwork", "lab", rig.Opts()))
}

// TestPolkitRuleRunsAway: polkit ends a rule that does not end after 15 seconds
// and answers then, and that answer is waited for.
func TestPolkitRuleRunsAway(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Polkit.Rules(rig.Rule("reload", "(function() { while (true); })()", "YES"))
	r.Polkit.Start()
	r.StartDaemon()
	a := r.As(rig.Alice)
	r.OK(a.Manager("ListNetworks"))
	r.WantDenied(a.Manager("Reload"), "does not let", "reload")
	r.OK(r.As(rig.Bob).Manager("ListNetworks"))
}

// TestPolicyIsMissing: polkit answers with an error, which names the remedy.
func TestPolicyIsMissing(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	rig.Must(t, r.Inside(func() error { return os.Remove("/usr/share/polkit-1/actions/" + rig.PolkitPolicy) }))
	r.Polkit.Start()
	r.StartDaemon()
	r.WantDenied(r.As(rig.Alice).Manager("Reload"), "does not know the action", "/usr/share/polkit-1/actions", "sudo")
	r.OK(r.Manager("Reload"))
}

// fakePolkit answers as no real one does: calls is what it is asked, and it
// answers by hand.
type fakePolkit struct {
	r     *rig.Rig
	conn  *godbus.Conn
	calls chan *godbus.Message
}

func startFakePolkit(r *rig.Rig) *fakePolkit {
	r.T.Helper()
	r.Polkit.Remove()
	uid, err := strconv.Atoi(strings.TrimSpace(r.Must("id", "-u", "polkitd")))
	rig.Must(r.T, err)
	conn := r.As(uid).Conn // the bus lets nobody else have the name
	_, err = conn.RequestName(rig.PolkitName, godbus.NameFlagDoNotQueue)
	rig.Must(r.T, err)
	f := &fakePolkit{r: r, conn: conn, calls: make(chan *godbus.Message, 64)}
	conn.Eavesdrop(f.calls)
	return f
}

// next returns the next call of a method.
func (f *fakePolkit) next(member string) *godbus.Message {
	f.r.T.Helper()
	timeout := time.After(rig.CallTimeout)
	for {
		select {
		case m := <-f.calls:
			if m.Headers[godbus.FieldMember].Value() == member {
				return m
			}
		case <-timeout:
			f.r.T.Fatalf("polkit was not asked for %s", member)
		}
	}
}

// authorization is what the real one answers with.
type authorization struct {
	Yes, Challenge bool
	Details        map[string]string
}

// TestPolkitTalksNonsense: an invalid answer does not count as a yes.
func TestPolkitTalksNonsense(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	f := startFakePolkit(r)
	r.StartDaemon()
	p := r.As(rig.Alice)
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
		r.WantDenied(<-done, c.word)
	}
	answer(f.conn, ask(), godbus.TypeError, "no such weather")
	r.WantDenied(<-done, "no such weather")
	answer(f.conn, ask(), godbus.TypeMethodReply, authorization{true, false, none})
	r.OK(<-done)
}

// TestStrangersDoNotAnswer: the bus lets a reply through only from the client
// that was asked, so that no other client can answer in polkit's place.
func TestStrangersDoNotAnswer(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	f := startFakePolkit(r)
	r.StartDaemon()
	p, stranger := r.As(rig.Alice), r.As(rig.Bob)
	done := make(chan *godbus.Call, 1)
	go func() { done <- p.Manager("Reload") }()
	asked := f.next("CheckAuthorization")
	service := asked.Headers[godbus.FieldSender].Value().(string)
	for _, conn := range []*godbus.Conn{stranger.Conn, p.Conn, r.Conn} {
		for serial := asked.Serial() - min(asked.Serial()-1, 5); serial < asked.Serial()+5; serial++ {
			sendReply(conn, service, serial, godbus.TypeMethodReply, authorization{true, false, map[string]string{}})
		}
		// The bus has dealt with these once it answers the next.
		r.OK(conn.BusObject().Call("org.freedesktop.DBus.GetId", 0))
	}
	// In order with what the service has got, should anything have come through.
	r.OK(p.Call(rig.ManagerPath, "org.freedesktop.DBus.Peer.Ping"))
	answer(f.conn, asked, godbus.TypeMethodReply, authorization{false, false, map[string]string{}})
	r.WantDenied(<-done, "does not let")
}

// TestApprovalIsForWhatWasThere: each call that changes a network compares what
// was approved with what is there when its turn comes.
func TestApprovalIsForWhatWasThere(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	f := startFakePolkit(r)
	r.StartDaemon()
	p := r.As(rig.Alice)
	lab := rig.NetXML("lab", "virbr5", "nat", rig.NatNet)
	r.OK(r.AddXML(lab))
	modes, turn := []string{"route", "nat"}, 0
	other := func() {
		r.OK(r.Network("lab", "Update", rig.Opts("ForwardMode", modes[turn%2]), rig.Opts()))
		turn++
	}
	another := func() { r.OK(r.AddXML(rig.NetXML("late", "virbr7", "nat", "10.7.0.1/24"))) }
	for _, c := range []struct {
		what      string
		call      func() *godbus.Call
		meanwhile func()
	}{
		{"Update", func() *godbus.Call { return p.Network("lab", "Update", rig.Opts("TFTP", true), rig.Opts()) }, other},
		{"Replace", func() *godbus.Call { return p.AddXML(lab, "Replace", true) }, other},
		{"RemoveNetwork", func() *godbus.Call { return p.Manager("RemoveNetwork", "lab", rig.Opts()) }, other},
		{"BindInterface", func() *godbus.Call { return p.Manager("BindInterface", "virbr5", "libvirt") }, other},
		{"UnbindInterface", func() *godbus.Call { return p.Manager("UnbindInterface", "virbr5") }, other},
		{"RemoveNetwork of none", func() *godbus.Call { return p.Manager("RemoveNetwork", "late", rig.Opts()) }, another},
	} {
		done := make(chan *godbus.Call, 1)
		go func() { done <- c.call() }()
		asked := f.next("CheckAuthorization")
		c.meanwhile()
		call := f.sayYes(asked, done)
		if r.WantDenied(call, "changed by another", "call again"); t.Failed() {
			t.Fatal(c.what)
		}
	}
	// And where nothing changed, it is done.
	done := make(chan *godbus.Call, 1)
	go func() { done <- p.Network("lab", "Update", rig.Opts("TFTP", true, "Bridge", "virbr8"), rig.Opts()) }()
	r.OK(f.sayYes(f.next("CheckAuthorization"), done))
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

// TestCancelledCheck: when the caller has left, polkit's dialogue is cancelled,
// and nothing is done.
func TestCancelledCheck(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	f := startFakePolkit(r)
	r.StartDaemon()
	p := r.As(rig.Alice)
	go p.Interactively(rig.ManagerPath, rig.ManagerName+".AddNetworkFromXML", rig.NetXML("lab", "virbr5", "nat", rig.NatNet), rig.Opts())
	quiet := f.next("CheckAuthorization")
	if flags := quiet.Body[3]; flags != uint32(0) {
		t.Errorf("the first question has the flags %v", flags)
	}
	answer(f.conn, quiet, godbus.TypeMethodReply, authorization{false, true, map[string]string{}})
	open := f.next("CheckAuthorization")
	if flags := open.Body[3]; flags != uint32(1) {
		t.Errorf("the second question has the flags %v", flags)
	}
	p.Leave()
	if id := f.next("CancelCheckAuthorization").Body[0]; id != open.Body[4] || id == "" {
		t.Errorf("check %v was cancelled, not %v", id, open.Body[4])
	}
	answer(f.conn, open, godbus.TypeMethodReply, authorization{true, false, map[string]string{}})
	r.Until("the denial", func() bool { return strings.Contains(r.Daemon.Log(), "the caller has left the bus") })
	if names := r.Names(); len(names) != 0 {
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

// halt stops a process as a debugger does, and has it go on at the test's end.
func halt(r *rig.Rig, signal func(syscall.Signal) error) {
	r.T.Helper()
	rig.Must(r.T, signal(unix.SIGSTOP))
	r.T.Cleanup(func() { _ = signal(unix.SIGCONT) })
}
