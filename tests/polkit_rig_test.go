package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/dbus"
)

const (
	actionPrefix = "org.virtfirewall.networkfirewall1."
	denied       = "org.freedesktop.DBus.Error.AccessDenied"
	needsPeople  = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	polkitName   = "org.freedesktop.PolicyKit1"

	alice, bob, carol = 2001, 2002, 2003
	rulesDir          = "/etc/polkit-1/rules.d"
)

// person is a connection to the host's bus as a user.
type person struct {
	r    *rig
	uid  int
	conn *godbus.Conn
}

// as connects to the bus as a user, who is made where the host has none.
func (r *rig) as(uid int) *person {
	r.t.Helper()
	if _, err := r.RunAs(uid, "true"); err != nil {
		r.t.Fatal(err)
	}
	var groups []uint32
	for _, id := range strings.Fields(r.Must("id", "-G", fmt.Sprint(uid))) {
		n, err := strconv.ParseUint(id, 10, 32)
		fatal(r.t, err)
		groups = append(groups, uint32(n))
	}
	var sock net.Conn
	err := r.Inside(func() (err error) {
		if err := become(uid, groups); err != nil {
			return fmt.Errorf("becoming user %d: %w", uid, err)
		}
		sock, err = net.Dial("unix", "/run/dbus/system_bus_socket")
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := godbus.NewConn(sock)
	if err == nil {
		err = conn.Auth([]godbus.Auth{godbus.AuthExternal(fmt.Sprint(uid))})
	}
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		r.t.Fatalf("connecting to the bus as user %d: %v", uid, err)
	}
	p := &person{r: r, uid: uid, conn: conn}
	r.t.Cleanup(p.leave)
	return p
}

// become makes the calling thread a user's, as a login does. The kernel notes who
// connects by the thread, which only raw calls change for this thread alone; it
// is thrown away afterwards. Polkit 126 goes by the groups of the connection,
// earlier ones by the user's.
func become(uid int, groups []uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(groups[0]), uintptr(groups[0]), keep); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), keep); e != 0 {
		return e
	}
	return nil
}

func (p *person) leave() { p.conn.Close() }

// call calls a method of an object of the service.
func (p *person) call(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	return p.callFlags(path, method, 0, args...)
}

// interactively is call with the flag that lets a person be asked.
func (p *person) interactively(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	return p.callFlags(path, method, godbus.FlagAllowInteractiveAuthorization, args...)
}

// callFlags makes the message itself, since godbus drops that flag.
func (p *person) callFlags(path godbus.ObjectPath, method string, flags godbus.Flags, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	dot := strings.LastIndex(method, ".")
	msg := &godbus.Message{Type: godbus.TypeMethodCall, Flags: flags, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(path), godbus.FieldDestination: godbus.MakeVariant(managerName),
		godbus.FieldInterface: godbus.MakeVariant(method[:dot]), godbus.FieldMember: godbus.MakeVariant(method[dot+1:]),
	}}
	if len(args) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	call := <-p.conn.SendWithContext(ctx, msg, make(chan *godbus.Call, 1)).Done
	call.Method = method // for messages
	return call
}

// Manager calls a method of the manager.
func (p *person) Manager(method string, args ...any) *godbus.Call {
	return p.call(managerPath, managerName+"."+method, args...)
}

// Network calls a method of a network's object.
func (p *person) Network(name, method string, args ...any) *godbus.Call {
	return p.call(dbus.NetworkPath(name), networkName+"."+method, args...)
}

// AddXML adds a network from a libvirt document.
func (p *person) AddXML(xml string, pairs ...any) *godbus.Call {
	return p.Manager("AddNetworkFromXML", xml, opts(pairs...))
}

// wantDenied checks that a call was denied for a reason that has these words.
func (r *rig) wantDenied(call *godbus.Call, words ...string) {
	r.t.Helper()
	r.wantError(call, denied)
	if !containsAll(message(call), words) {
		r.t.Errorf("%s was denied with %q, which lacks one of %q", call.Method, message(call), words)
	}
}

// polkitRig is a host with polkitd and the service, and these rules of the
// administrator's.
func polkitRig(t testing.TB, rules string) *rig {
	t.Helper()
	r := newRig(t)
	r.rules(rules)
	r.Polkit()
	r.StartDaemon()
	return r
}

// rules puts the administrator's rules in place before polkitd starts.
func (r *rig) rules(text string) {
	r.t.Helper()
	const path = rulesDir + "/10-test.rules"
	fatal(r.t, r.WriteFile(path, []byte(text), 0o644))
}

// rule lets a polkit rule answer where a condition holds; id is the action's
// last part.
func rule(id, condition, result string) string {
	return fmt.Sprintf("polkit.addRule(function(action, subject) {\n"+
		"  if (action.id == %q && (%s)) return polkit.Result.%s;\n});\n", actionPrefix+id, condition, result)
}

// join puts a user into a group of the host.
func (r *rig) join(group string, uid int) {
	r.t.Helper()
	if _, err := r.RunAs(uid, "true"); err != nil {
		r.t.Fatal(err)
	}
	r.Must("sh", "-c", fmt.Sprintf("getent group %s >/dev/null || groupadd -r %s; gpasswd -a u%d %s", group, group, uid, group))
}

// halt stops a process as a debugger does, and has it go on at the test's end.
func (r *rig) halt(signal func(syscall.Signal) error) {
	r.t.Helper()
	fatal(r.t, signal(unix.SIGSTOP))
	r.t.Cleanup(func() { _ = signal(unix.SIGCONT) })
}

// withoutPolkit keeps the bus from starting polkitd.
func (r *rig) withoutPolkit() {
	r.t.Helper()
	err := r.Inside(func() error { return os.Remove("/usr/share/dbus-1/system-services/" + polkitName + ".service") })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	r.must(r.bus.BusObject().Call("org.freedesktop.DBus.ReloadConfig", 0))
}

// await waits until something holds.
func (r *rig) await(what string, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(callTimeout); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// errorName is the name of the error that a call ended with; "" for none.
func errorName(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	if err != nil {
		return "local: " + err.Error()
	}
	return ""
}
